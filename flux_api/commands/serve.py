"""``serve``: the API and the file server together, until Ctrl-C.

Starts two processes, shows the loading, prints the addresses and a first command, and
stops both. Everything that can be set in the environment goes through to them.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import urllib3

SETTINGS = Path(__file__).parents[2] / "flux_server" / "gunicorn_settings.py"
_LOOK_SECONDS = 5.0


@dataclass(frozen=True)
class Addresses:
    """Where the two listen, as HOST:PORT."""

    api: str
    files: str


class Address(click.ParamType[str]):
    """HOST:PORT."""

    name = "host:port"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """``value`` where it is one."""
        host, _, port = value.rpartition(":")
        if host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:
            return value
        self.fail(f"{value!r} is no HOST:PORT", param, ctx)


@click.command()
@click.option(
    "--bind",
    type=Address(),
    default="127.0.0.1:8000",
    show_default=True,
    help="Where the API listens.",
)
@click.option(
    "--files-bind",
    type=Address(),
    default="127.0.0.1:8010",
    show_default=True,
    help="Where the file server listens.",
)
@click.pass_obj
def serve(environ: Mapping[str, str], bind: str, files_bind: str) -> int:
    """Run the API and the file server until Ctrl-C.

    Settings are environment variables: FLUX_MODEL chooses the model set, the README has
    all of them.

    \b
    flux-api serve
    FLUX_MODEL=klein-4b flux-api serve --bind 0.0.0.0:8000
    """
    if bind.rpartition(":")[2] == files_bind.rpartition(":")[2]:
        raise click.UsageError("--bind and --files-bind need different ports")
    for name, address in (("API", bind), ("file server", files_bind)):
        if is_taken(address):
            print(
                f"{address} is in use: stop what runs there, or choose another "
                f"address for the {name} (see 'flux-api serve --help').",
                file=sys.stderr,
            )
            return 1
    return run(Addresses(bind, files_bind), environ)


def run(addresses: Addresses, environ: Mapping[str, str]) -> int:
    """Both until a signal or until one of them ends; the exit status."""
    # Ctrl-C too: a shell starts its background jobs with it switched off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, raise_interrupt)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        start(addresses, environ, processes)
        return watch(addresses, processes)
    except KeyboardInterrupt:
        print("\nStopping; a running picture is finished first.", flush=True)
        return 0
    finally:
        stop(processes)


def start(
    addresses: Addresses,
    environ: Mapping[str, str],
    processes: list[subprocess.Popen[bytes]],
) -> None:
    """Both servers, each in a session of its own: Ctrl-C reaches only this process,
    which then stops them in order."""
    files = f"http://{local(addresses.files)}"
    given = {**environ, "FILE_SERVER": environ.get("FILE_SERVER") or files}
    gunicorn = [sys.executable, "-m", "gunicorn", "-c", str(SETTINGS)]
    commands = [
        [*gunicorn, "-b", addresses.files, "file_server:create_app()"],
        [*gunicorn, "-b", addresses.api, "flux_server.wsgi:app"],
    ]
    for command in commands:
        processes.append(subprocess.Popen(command, env=given, start_new_session=True))


def watch(addresses: Addresses, processes: list[subprocess.Popen[bytes]]) -> int:
    """Show what the API is doing until it is ready, then wait for an end."""
    said = ""
    while all(process.poll() is None for process in processes):
        reason, model = look(f"http://{local(addresses.api)}/readyz")
        if reason != said:
            text = f"... {reason}" if reason else welcome(addresses, model)
            print(text, flush=True)
            said = reason
        time.sleep(0.2 if reason else 1.0)
    print("A server ended by itself; its last lines say why.", file=sys.stderr)
    return 1


def look(url: str) -> tuple[str, str]:
    """Why the API takes no requests yet, empty when it does; and its model."""
    try:
        answer = urllib3.request("GET", url, timeout=_LOOK_SECONDS, retries=False)
        told = json.loads(answer.data)
        if answer.status == 200:
            # Another server on this port is not ours.
            return "", str(told["model"])
        return str(told["reason"]), ""
    except (urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError):
        return "starting", ""


def welcome(addresses: Addresses, model: str) -> str:
    """The addresses, the ``model``, and a command to paste."""
    api = f"http://{local(addresses.api)}"
    return f"""
Flux Imaging API is ready.
  Model         {model}
  Page          {api}/
  API           {api}        (OpenAI SDK: base_url="{api}/v1")
  File server   http://{local(addresses.files)}

Try it:
  curl {api}/process/raw -F "prompt=a red heart" -F seed=7 -o heart.png

Ctrl-C stops both.
"""


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """TERM to each, the API first; a second Ctrl-C does not wait."""
    try:
        for process in reversed(processes):
            if process.poll() is None:
                process.terminate()
            process.wait()
    except KeyboardInterrupt:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def is_taken(address: str) -> bool:
    """Whether something answers at ``host:port``."""
    host, _, port = local(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def local(address: str) -> str:
    """``address`` as this machine reaches it."""
    host, _, port = address.rpartition(":")
    reached = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
    return f"{reached.get(host, host)}:{port}"


def raise_interrupt(signum: int, frame: object) -> None:
    """TERM is a Ctrl-C."""
    raise KeyboardInterrupt
