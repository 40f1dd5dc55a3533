"""The Model Context Protocol: both official clients, and literal messages."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import requests
from PIL import Image

from tests.support.coroutines import run_coroutine
from tests.support.node_client import FOLDER, install
from tests.support.pictures import make_png, save
from tests.support.servers import run_api, wait_for
from tests.support.wire import data_url, post, seen, stats

KEY = "sk-key-of-an-agent"
SMALL = {"prompt": "a red heart", "size": "64x64", "seed": 7}
TOOLS = [
    *("generate_image", "edit_image", "vary_image"),
    *("list_models", "job_status", "cancel_job"),
]


def rpc(server, method, params=None, **options):
    """The answer to a message."""
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
    answer = post(server, "/mcp", json=message, **options)
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json()


def call(server, name, arguments, **options):
    """What a tool gave."""
    params = {"name": name, "arguments": arguments}
    answer = rpc(server, "tools/call", params, **options)
    assert (answer["jsonrpc"], answer["id"]) == ("2.0", 1)
    return answer["result"]


def pictures(result):
    """The pictures of a result's content."""
    return [
        Image.open(io.BytesIO(base64.b64decode(block["data"])))
        for block in result["content"]
        if block["type"] == "image"
    ]


def test_a_models_name_that_is_nearly_one_is_warned_of(fake):
    result = call(fake, "generate_image", SMALL | {"model": "tinny"})
    [facts] = result["structuredContent"]["pictures"]
    assert "so 'tiny' was taken" in facts["warning"]


def test_the_python_client(fake):
    mcp = pytest.importorskip("mcp")

    async def use(url):
        async with mcp.Client(url) as client:
            listed = await client.list_tools()
            made = await client.call_tool("generate_image", SMALL | {"n": 2})
            wrong = await client.call_tool("generate_image", {"prompt": "x", "n": 99})
            return listed, made, wrong

    listed, made, wrong = run_coroutine(use(f"{fake.url}/mcp"))
    assert [tool.name for tool in listed.tools] == TOOLS
    kinds = [block.type for block in made.content]
    assert kinds == ["image", "image", "text"]
    picture = Image.open(io.BytesIO(base64.b64decode(made.content[0].data)))
    assert picture.size == (64, 64)
    assert not made.is_error
    assert wrong.is_error
    assert "'n'" in wrong.content[0].text


def test_the_typescript_client_with_a_key():
    install()
    settings = {"FLUX_API_KEYS": f"agent:{KEY}"}
    with run_api(app="tests.support.fake_app:app", **settings) as server:
        server.wait_ready()
        done = subprocess.run(
            ["node", "mcp.mjs", f"{server.url}/mcp", KEY],
            cwd=FOLDER,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        without = rpc(server, "tools/list")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["server"]["name"] == "flux-imaging-api"
    assert told["tools"] == TOOLS
    assert [picture.size for picture in pictures(told["generated"])] == [(64, 64)] * 2
    assert told["refused"]["isError"] is True
    assert "multiples of 16" in told["refused"]["content"][0]["text"]
    assert without["error"]["data"]["code"] == "invalid_api_key"


def test_what_only_reads_says_so(fake):
    """An agent asks its user before it uses any other."""
    tools = rpc(fake, "tools/list")["result"]["tools"]
    hints = {tool["name"]: tool["annotations"]["readOnlyHint"] for tool in tools}
    reads = {"list_models", "job_status"}
    assert hints == {name: name in reads for name in TOOLS}


def test_a_handshake_speaks_a_known_version(fake):
    for asked, spoken in (
        ("2025-06-18", "2025-06-18"),
        ("1999-01-01", "2025-11-25"),
        (None, "2025-11-25"),
    ):
        told = rpc(fake, "initialize", {"protocolVersion": asked})["result"]
        assert told["protocolVersion"] == spoken
        assert told["capabilities"] == {"tools": {}}
    assert rpc(fake, "ping")["result"] == {}
    body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    answer = post(fake, "/mcp", json=body)
    assert (answer.status_code, answer.content) == (202, b"")
    # No stream is offered, and there is no session to end.
    for method in ("GET", "DELETE"):
        answer = requests.request(method, f"{fake.url}/mcp", timeout=10)
        assert answer.status_code == 405


def test_a_version_that_nobody_agreed_on_is_refused(fake):
    for spoken in ("2025-06-18", "2024-11-05"):
        told = rpc(fake, "tools/list", headers={"MCP-Protocol-Version": spoken})
        assert len(told["result"]["tools"]) == len(TOOLS)
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    for spoken in ("1999-01-01", "2026-07-28", "latest"):
        headers = {"MCP-Protocol-Version": spoken}
        answer = post(fake, "/mcp", json=message, headers=headers)
        assert answer.status_code == 400
        told = answer.json()
        assert (told["id"], told["error"]["code"]) == (1, -32600)
        assert spoken in told["error"]["message"]
        assert "2025-11-25" in told["error"]["message"]
        # A client that speaks a later one says so when it greets, and is told ours.
        greeting = message | {"method": "initialize"}
        assert post(fake, "/mcp", json=greeting, headers=headers).status_code == 200


def test_pictures_are_edited_and_varied(fake):
    # Larger than text may be.
    noise = Image.effect_noise((1100, 1100), 90)
    large = base64.b64encode(save(noise)).decode()
    assert len(large) > 1 << 20
    made = call(fake, "edit_image", {"prompt": "blue", "image": large, "seed": 1})
    assert made["structuredContent"]["pictures"][0]["mode"] == "edit"
    assert seen(fake)["images"] == [[1100, 1100]]
    picture = data_url(make_png())
    made = call(fake, "vary_image", {"image": [picture], "prompt": "softly"})
    assert pictures(made)[0].size == (96, 64)
    assert (seen(fake)["mode"], seen(fake)["prompt"]) == ("variation", "softly")


def test_links_lead_to_the_pictures(fake, fake_with_files, files):
    made = call(fake_with_files, "generate_image", SMALL | {"result": "link"})
    [link, _] = made["content"]
    assert (link["type"], link["mimeType"]) == ("resource_link", "image/png")
    assert link["uri"].startswith(f"{files.url}/i/")
    assert requests.get(link["uri"], timeout=10).ok
    two = call(fake, "generate_image", SMALL | {"result": "link", "n": 2})
    for seed, link in zip(("7", "8"), two["content"], strict=False):
        assert requests.get(link["uri"], timeout=10).headers["X-Flux-Seed"] == seed


def test_a_job_is_looked_at_and_cancelled(fake):
    begun = call(fake, "generate_image", {"prompt": "hold", "wait": False})
    job = begun["structuredContent"]["id"]
    wait_for(lambda: stats(fake)["running"] == 1, 10)
    told = call(fake, "job_status", {"job_id": job})["structuredContent"]
    assert told["state"] == "running"
    told = call(fake, "cancel_job", {"job_id": job})["structuredContent"]
    assert told["state"] == "cancelled"

    job = call(fake, "generate_image", SMALL | {"wait": False})["structuredContent"]

    def made():
        return pictures(call(fake, "job_status", {"job_id": job["id"]}))

    wait_for(made, 10)
    assert made()[0].size == (64, 64)


def test_a_client_that_leaves_stops_its_job(fake):
    body = {"name": "generate_image", "arguments": {"prompt": "hold"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": body}
    with closing(requests.Session()) as session, pytest.raises(requests.Timeout):
        session.post(f"{fake.url}/mcp", json=message, timeout=(5, 1))
    wait_for(lambda: stats(fake)["running"] == 0, 10)
    assert stats(fake)["begun"] == 1


def test_a_dry_run_and_the_models(fake):
    told = call(fake, "generate_image", SMALL | {"dry_run": True})["structuredContent"]
    assert (told["dry_run"], told["request"]["seed"]) == (True, 7)
    assert stats(fake)["begun"] == 0
    told = call(fake, "list_models", {})["structuredContent"]
    assert (told["default_model"], told["models"][0]["id"]) == ("tiny", "tiny")


def test_who_does_not_wait_is_told_of_them_too(fake):
    arguments = SMALL | {"mood": "calm", "model": "Tiny", "wait": False}
    told = call(fake, "generate_image", arguments)["structuredContent"]
    assert "'mood' was ignored" in told["warning"]
    assert "so 'tiny' was taken" in told["warning"]


def test_arguments_that_no_tool_has_are_told_of(fake):
    made = call(fake, "generate_image", SMALL)["structuredContent"]
    for tool in ("job_status", "cancel_job", "list_models"):
        taken = {"job_id": made["job_id"]} if tool != "list_models" else {}
        told = call(fake, tool, taken | {"mood": "calm"})
        warning = "'mood' was ignored: there is no such argument."
        assert told["structuredContent"]["warning"] == warning
        assert warning in told["content"][-1]["text"]
        assert "warning" not in call(fake, tool, taken)["structuredContent"]
    near = call(fake, "job_status", {"job_id": made["job_id"], "results": "link"})
    assert "did you mean 'result'?" in near["structuredContent"]["warning"]


@pytest.mark.parametrize(
    ("tool", "arguments", "word"),
    [
        ("generate_image", {}, "'prompt'"),
        ("generate_image", SMALL | {"seed": "x"}, "'seed'"),
        ("generate_image", SMALL | {"image": data_url(make_png())}, "edit_image"),
        ("edit_image", {"prompt": "x"}, "'image'"),
        ("edit_image", {"prompt": "x", "image": "%%"}, "image"),
        ("vary_image", {"image": data_url(b"text")}, "image"),
        ("generate_image", {"prompt": "fail=pipeline"}, "no usable picture"),
        ("job_status", {"job_id": "no-such-job"}, "no such job"),
        ("job_status", {"job_id": "x"}, "'job_id'"),
    ],
)
def test_an_agent_is_told_what_is_wrong(fake, tool, arguments, word):
    told = call(fake, tool, arguments)
    assert told["isError"] is True
    [block] = told["content"]
    assert word in block["text"]
    assert "/" not in block["text"] or "http" in block["text"]


@pytest.mark.parametrize(
    ("message", "status", "code"),
    [
        ({"method": "no/such"}, 200, -32601),
        ({"method": "server/discover"}, 200, -32601),
        ({"method": "tools/call", "params": {"name": "no_such"}}, 200, -32602),
        (
            {"method": "tools/call", "params": {"name": "list_models", "arguments": 3}},
            200,
            -32602,
        ),
        ({"method": "ping", "params": [1]}, 400, -32600),
        ({"method": 7}, 400, -32600),
    ],
)
def test_wrong_messages(fake, message, status, code):
    answer = post(fake, "/mcp", json={"jsonrpc": "2.0", "id": "a"} | message)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code


def test_what_is_no_message(fake):
    batch = b'[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]'
    for body in (b"[]", batch, b'{"id": true}', b'{"id": {}}'):
        headers = {"Content-Type": "application/json"}
        answer = post(fake, "/mcp", data=body, headers=headers)
        told = answer.json() if answer.content else None
        assert answer.status_code in (202, 400)
        assert told is None or told["error"]["code"] == -32600
    for body in (b"", b"{", b'{"id": 1, "method": "ping"'):
        answer = post(fake, "/mcp", data=body, headers=headers)
        told = answer.json()
        assert (answer.status_code, told["id"]) == (400, None)
        assert told["error"]["code"] == -32700
    large = {"id": 1, "method": "ping", "params": {"text": "x" * (2 << 20)}}
    assert post(fake, "/mcp", json=large).status_code == 413


def test_fifty_times_the_same_key_is_one_run(fake):
    headers = {"Idempotency-Key": "fifty-of-mcp"}

    def again(_):
        return call(fake, "generate_image", SMALL, headers=headers)

    with ThreadPoolExecutor(25) as pool:
        answers = list(pool.map(again, range(50)))
    assert all(answer == answers[0] for answer in answers)
    assert stats(fake)["begun"] == 1


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({"wait": False}, {}),
        ({"result": "link"}, {}),
        ({}, {"Prefer": "respond-async"}),
    ],
    ids=["wait", "link", "prefer"],
)
def test_where_no_picture_is_kept_none_is_promised(fake_without_results, more, headers):
    before = stats(fake_without_results)["begun"]
    arguments = SMALL | more
    made = call(fake_without_results, "generate_image", arguments, headers=headers)
    assert made["isError"]
    assert "FLUX_RESULTS_MB" in made["content"][0]["text"]
    assert stats(fake_without_results)["begun"] == before
