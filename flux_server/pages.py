"""Web pages of other sites, which make a browser call a server that it can reach."""

from __future__ import annotations

from werkzeug.datastructures import Headers


def is_cross_site(headers: Headers) -> bool:
    """Whether a page of another site had these request headers sent.

    By Fetch Metadata (https://www.w3.org/TR/fetch-metadata/), which browsers send to
    https and to this machine alone; elsewhere by an Origin with another name than the
    Host, or than a proxy says that it was. Ports are not compared, as proxies drop
    them. No page can set these for another site, nor X-Requested-With unless that site
    allows it beforehand.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None or origin is None:
        return site == "cross-site"
    if "X-Requested-With" in headers:
        return False
    hosts = headers.get("Host", ""), headers.get("X-Forwarded-Host", "")
    names = {host_name(host) for told in hosts for host in told.split(",")}
    return host_name(origin.partition("://")[2]) not in names - {""}


def host_name(host: str) -> str:
    """The name in a Host header: that of ``[::1]:8000`` is ``::1``."""
    name = host.strip().lower()
    name = name[1:].partition("]")[0] if name[:1] == "[" else name.partition(":")[0]
    return name.rstrip(".")
