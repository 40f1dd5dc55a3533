"""What the API answers to many odd requests, a line each: run it in two checkouts and
compare, to see what a change of the parsers changes for callers.

    python -m tests.answers 10000 > before.txt    # in one checkout
    python -m tests.answers 10000 > after.txt     # in the other
    diff before.txt after.txt

Requests are drawn from a seed, so that both see the same: mostly good ones, with one to
three values that are odd in a way that callers' are.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys

from tests.support.fuzz_requests import (
    ATOMS,
    NAMES,
    PATHS,
    draw_part,
    draw_value,
    quote,
    ready_client,
)

SOUND = {
    "prompt": ["a cat", "a red heart"],
    "size": ["64x64", "auto"],
    "width": [64, "128"],
    "height": [64],
    "seed": [1, "7", -1],
    "num_inference_steps": [2, "3"],
    "guidance_scale": [1, "3.5"],
    "n": [1, "1"],
    "response_format": ["b64_json", "url"],
    "output_format": ["png", "webp"],
    "quality": ["low", "hd"],
}
WORDS = re.compile(r"\d{6,}|data:[^ ']+|[0-9a-f]{32}")


def draw_request(source):
    """(path, content type, body) of a request that is nearly good."""
    path = source.choice(PATHS)
    values = {n: source.choice(SOUND[n]) for n in source.sample(sorted(SOUND), 4)}
    values |= {"prompt": "a cat"} if source.random() < 0.8 else {}
    for name in source.choices([n for n in NAMES if n], k=source.choice([0, 1, 1, 2])):
        odd = source.random() < 0.8
        values[name] = source.choice(ATOMS) if odd else draw_value(source)
    kind = source.choice(["json", "urlencoded", "multipart"])
    if kind == "json":
        return path, "application/json", json.dumps(values).encode()
    pairs = [(name, value) for name, value in values.items() if value is not None]
    if source.random() < 0.1:
        pairs.append(source.choice(pairs or [("prompt", "a dog")]))
    if kind == "urlencoded":
        body = "&".join(f"{name}={quote(value)}" for name, value in pairs)
        return path, "application/x-www-form-urlencoded", body.encode()
    parts = [draw_part(source, *pair) for pair in pairs]
    if source.random() < 0.5:
        name = "input_file" if path.startswith("/process") else "image"
        parts.append(draw_part(random.Random(1), name, ""))
    return path, "multipart/form-data; boundary=XX", b"".join(parts) + b"--XX--\r\n"


def describe(answer):
    """Its status and what its error says, without what is new each time."""
    if answer.status_code == 200:
        return "200"
    error = answer.get_json()["error"]
    if isinstance(error, str):
        return f"{answer.status_code} {WORDS.sub('...', error)[:120]!r}"
    message = WORDS.sub("...", error["message"])[:120]
    return f"{answer.status_code} {error['code']} {error['param']} {message!r}"


def main():
    """Print a line for each request."""
    logging.disable()
    client = ready_client()
    for number in range(int(sys.argv[1])):
        path, kind, body = draw_request(random.Random(number))
        answer = client.post(path, data=body, content_type=kind)
        print(number, path, kind.partition(";")[0], describe(answer))


if __name__ == "__main__":
    main()
