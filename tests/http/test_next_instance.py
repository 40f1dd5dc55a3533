"""Which answers nginx hands on to another instance, and to which place."""

from __future__ import annotations

import pytest
from flask import Flask, Response

from flux_api.http.next_instance import hand_on


def handed_to(status, place):
    """Where nginx is sent from an answer of ``status`` when ``place`` is next."""
    headers = {"X-Flux-Next": place} if place else {}
    with Flask("others").test_request_context(headers=headers):
        return hand_on(Response(status=status)).headers.get("X-Accel-Redirect")


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_full_loads_or_stops_is_asked_elsewhere(status):
    assert handed_to(status, "@next1") == "@next1"


@pytest.mark.parametrize("status", [200, 202, 400, 404, 409, 499, 500, 504, 507])
def test_another_answer_is_the_last_word(status):
    assert handed_to(status, "@next1") is None


@pytest.mark.parametrize(
    "place", [None, "", "/etc/passwd", "@away", "@next", "@next1000", "@next1/x"]
)
def test_only_places_that_nginx_itself_names_are_taken(place):
    assert handed_to(503, place) is None
    assert handed_to(503, "@next999") == "@next999"
