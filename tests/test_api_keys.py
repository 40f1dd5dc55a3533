"""Which listeners can be reached from their own machine only."""

from __future__ import annotations

import pytest

from flux_api.api_keys import is_loopback
from flux_api.commands.instances import is_local

OWN = ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")
OTHERS = ("0.0.0.0", "::", "10.0.0.1", "192.168.1.7", "fe80::1", "flux.lan", "")


@pytest.mark.parametrize("host", OWN)
def test_loopback_addresses_are_this_machines(host):
    assert is_loopback((host, 8000))
    assert is_local(f"{host}:8000")


@pytest.mark.parametrize("host", OTHERS)
def test_others_are_reached_by_others(host):
    assert not is_loopback((host, 8000))
    assert not is_local(f"{host}:8000")


def test_so_is_a_socket_in_the_file_system():
    assert is_loopback("/run/flux.sock")
