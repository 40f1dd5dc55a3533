"""The names under which the server may be called."""

from __future__ import annotations

from collections.abc import Iterable

from flux_api.api_keys import is_loopback
from flux_api.net.urls import is_named
from flux_api.settings import LOCAL_NAMES
from flux_server.pages import host_name


class TrustedHosts:
    """The names under which this server may be called. ``names`` are those that the
    operator says, ``.example.org`` for all below it; with none it is any name, until
    :meth:`bind` finds that only this machine can call."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = tuple(name.lower() for name in names)

    def bind(self, addresses: Iterable[object]) -> None:
        """Judge by the ``addresses`` that are listened on, each (host, port) or the
        path of a socket; without names of the operator's own."""
        # A socket in the file system has no name that a page could call.
        bound = [address[0] for address in addresses if isinstance(address, tuple)]
        if not self._names and bound and all(is_loopback((host,)) for host in bound):
            self._names = (*LOCAL_NAMES, *map(str, bound))

    def trusts(self, host: str) -> bool:
        """Whether ``host``, a request's header, is one of them."""
        name = host_name(host)
        return (
            not self._names
            or not name  # No browser leaves it out.
            or is_named(name, self._names)
        )
