"""Whose turn it is in the queue, by the address that a request comes from."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from flux_api.http.clients import caller_of


def caller(address):
    """The caller of a request from ``address``."""
    environ = EnvironBuilder(environ_base={"REMOTE_ADDR": address}).get_environ()
    return caller_of(Request(environ))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_one_client_is_one_caller_by_whichever_of_its_addresses(one, other):
    assert caller(one) == caller(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("192.0.2.1", "192.0.2.2"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
        ("192.0.2.1", ""),
    ],
)
def test_others_are_others(one, other):
    assert caller(one) != caller(other)
