"""What a caller sent is repeated in messages, so that it is found again, and cut off
there: it goes into headers and logs."""

from __future__ import annotations

import pytest

from tests.support.wire import EDITS, post

PROMPT = {"prompt": "a cat"}
LONG = "z" * 100
PART = b'--X\r\nContent-Disposition: form-data; name="%s"\r\n\r\n\xe9\r\n--X--'


def _mcp(method="tools/call", name="generate_image", **arguments):
    params = {"name": name, "arguments": PROMPT | {"dry_run": True} | arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@pytest.mark.parametrize(
    ("path", "sent", "length"),
    [
        (
            EDITS,
            {
                "data": PART % LONG.encode(),
                "headers": {"Content-Type": "multipart/form-data; boundary=X"},
            },
            64,
        ),
        (EDITS, {"json": PROMPT, "headers": {"Content-Encoding": LONG}}, 40),
        (EDITS, {"data": PROMPT, "files": {LONG: ("a.png", b"x")}}, 64),
        ("/sdapi/v1/options", {"json": {LONG: 1}}, 64),
        ("/sdapi/v1/options", {"json": {"sd_model_checkpoint": LONG}}, 64),
        (
            "/mcp",
            {"json": _mcp(), "headers": {"MCP-Protocol-Version": LONG}},
            64,
        ),
        ("/mcp", {"json": _mcp(method=LONG)}, 64),
        ("/mcp", {"json": _mcp(name=LONG)}, 64),
        # A name that no tool has is ignored, with a word of it.
        ("/mcp", {"json": _mcp(**{LONG: 1})}, 64),
    ],
    ids=[
        *("field", "encoding", "file", "option", "model"),
        *("version", "method", "tool", "argument"),
    ],
)
def test_of_what_is_long_the_beginning_is_repeated(fake, path, sent, length):
    answer = post(fake, path, **sent).text
    assert LONG[:length] in answer
    assert LONG[: length + 1] not in answer
