"""The API behind nginx, for tests that were written without it.

``BEHIND_NGINX=2`` has every ``run_api`` start two instances and the nginx that
``serve --instances 2`` would put in front of them. ``/fake/...`` is of all instances
together.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from flux_api.commands.instances import Layout
from flux_api.commands.nginx import site_text
from tests.support.nginx import run_nginx_with
from tests.support.servers import Server

COUNT = int(os.environ.get("BEHIND_NGINX") or 0)
# What legitimately differs, by a pattern in the test's id: nginx answers by itself, and
# no instance sees the request. tests/deploy/test_hostile_nginx.py looks at how.
BY_NGINX = {
    "cut_off_form|cut_off_json|test_half_sent_bodies": "no answer to half a body",
    r"cut_off_chunked.*-(nothing|in-a-chunk|between)": "nor in chunks",
    r"chunked-bad-size-/process\]": "400, in the words of an API that is not known",
    "test_a_drip_is_shut_off": "a body may come byte by byte: no thread waits for it",
    r"read_all_the_same\[.*-no-such": "a large body is refused for its size first",
    "without_waiting_for_it": "it waits 5 s for more; 2**63 is no number to it",
    r"server_itself\[(long-line|large-header|many-headers)": "400, not 414 and 431",
    r"in_their_form\[(dots|dots-encoded|model-dots|job-dots)\]": "above the root: 400",
    r"in_their_form\[(nul|model-nul)\]": "a zero byte in an address: 400",
    r"in_their_form\[asterisk\]": "an asterisk is no address: 400",
    r"forged_hosts_do_nothing\[[^\[]*-\]$": "an empty Host: 400",
    r"prefix_of_a_proxy_counts.*\[1\]": "no header with an underscore is passed on",
    "what_the_pages_address_was": "nginx tells the Host as it is, and nothing else",
    r"open_port.*\[0.0.0.0--True\]": "'serve' says it, which starts them",
}
# With two instances each bounds for itself: what one has no room for the other takes.
OF_TWO = {
    "test_each_key_is_bounded_for_itself": "another instance takes the second",
    "a_fetch_holds_a_place_in_the_queue|recipe_holds_a_place_too": "two queues",
    "one_caller_fetches_four_at_a_time": "four of each instance",
    "not_held_while_its_job_waits": "two run, two wait",
    "endless_pictures_leave_a_decoder": "each instance has decoders of its own",
}
# As it stands in the configuration; run_nginx_with puts a free port there.
_BIND, _FILES = "127.0.0.1:8080", "127.0.0.1:8010"
_KEYS = ("Authorization", "Api-Key")
_COUNTED = ("begun", "finished", "steps", "running", "queued", "sleeps")


class Fronted(Server):
    """Instances behind nginx, as one server."""

    def __init__(self, url, instances):
        super().__init__(url, instances[0].process, None)
        self.instances = instances

    @property
    def output(self):
        """What the instances printed."""
        return "".join(instance.output for instance in self.instances)

    def wait_ready(self, seconds=90):
        """Wait for all; gives the server back."""
        for instance in self.instances:
            instance.wait_ready(seconds)
        return self

    def stop(self, *options, **named):
        """As that of one, for each; the last exit status."""
        return [one.stop(*options, **named) for one in self.instances][-1]


@contextlib.contextmanager
def run_fronted(run_one, options, settings):
    """``COUNT`` instances behind nginx; ``run_one(**settings)`` runs one of them.
    ``options`` are none, or -b and where nginx is to listen."""
    given = {name: str(value) for name, value in settings.items()}
    _, bind = options or ("-b", _BIND)
    layout = Layout(bind, _FILES, 1, (None,) * COUNT, None, given)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        instances = []
        for number in range(COUNT):
            own = layout.api_environ(number)
            if "FILE_SERVER" not in given:
                del own["FILE_SERVER"], own["FILE_SERVER_PUBLIC_URL"]
            instances.append(stack.enter_context(run_one(**own)))
        addresses = tuple(one.url.removeprefix("http://") for one in instances)
        site = replace(layout.site, listen=_BIND, instances=addresses, folder=None)
        text = site_text(site)
        told = stack.enter_context(_all_fakes(instances))
        inside = f"location /fake/ {{ proxy_pass {told}; }}\n    location / {{"
        text = text.replace("location / {", inside)
        # As soon as a server by itself would.
        seconds = given.get("FLUX_BODY_TIMEOUT", "30")
        text = text.replace(
            "client_body_timeout 30s", f"client_body_timeout {seconds}s"
        )
        files = Server(given.get("FILE_SERVER", f"http://{_FILES}"), None, None)
        nginx = stack.enter_context(run_nginx_with(folder, text, files))
        yield Fronted(nginx.url, instances)


@contextlib.contextmanager
def _all_fakes(instances):
    """The address of a server whose ``/fake/...`` is that of all ``instances``."""

    class Together(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            given = {name: self.headers.get(name, "") for name in _KEYS}
            told = [
                requests.request(self.command, one.url + self.path, headers=given)
                for one in instances
            ]
            body = json.dumps(_together([one.json() for one in told])).encode()
            self.send_response(told[0].status_code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_):
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Together)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _together(told):
    """The stats of several as those of one, the newest request last."""
    whole = dict(told[0])
    for name in set(_COUNTED) & set(whole):
        whole[name] = sum(one.get(name, 0) for one in told)
    if "requests" in whole:
        made = [request for one in told for request in one["requests"]]
        whole["requests"] = sorted(made, key=lambda request: request["at"])
        whole["arrived"] = [request for one in told for request in one["arrived"]]
    return whole
