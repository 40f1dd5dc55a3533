"""JSON answers: every text that a caller can send comes back as it is."""

from __future__ import annotations

import json

import pytest
import requests

from flux_api.http.json_text import to_json

TEXTS = ["猫", "\u2028\u2029", '"\\/', "\x00\x1f\x7f", "😀", "\ud800", ""]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_every_text_survives(text):
    value = {"a": [text, 1, 1.5, None, True], text: {}}
    assert json.loads(to_json(value)) == value


@pytest.mark.parametrize("path", ["/process", "/v1/images/generations"])
def test_half_a_surrogate_pair_is_named_and_not_a_failure(fake, path):
    answer = requests.post(
        fake.url + path,
        data=b'{"prompt": "x", "output_format": "\\ud800"}',
        headers={"Content-Type": "application/json"},
        timeout=9,
    )
    assert answer.status_code == 400
    assert answer.text.endswith("\n")
