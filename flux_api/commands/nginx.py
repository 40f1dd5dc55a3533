"""nginx's configuration in front of one or more instances and the file server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flux_api.commands.nginx_refusals import SEALED, refusals_text

_TEMPLATE = Path(__file__).with_name("nginx.conf")
# nginx follows a request through ten places at most. The last one is for its own words,
# where nobody answers.
MOST_NEXT = 9
_PICTURES = """\
    # Pictures straight from the folder where the file server stores them.
    location ~ "^/i/(?<file>[0-9a-f]{32}\\.(?:png|jpe?g|webp|gif|bmp|tiff?|avif))$" {
        root "@FOLDER@";
        try_files /$file @stored;
        disable_symlinks on;
        types {
            image/png png; image/jpeg jpg jpeg; image/webp webp; image/gif gif;
            image/bmp bmp; image/tiff tif tiff; image/avif avif;
        }
        add_header Access-Control-Allow-Origin *;
        add_header Cache-Control "public, max-age=31536000, immutable";
        add_header Content-Security-Policy "default-src 'none'; sandbox";
        add_header Cross-Origin-Resource-Policy cross-origin;
        add_header Referrer-Policy no-referrer;
        add_header X-Content-Type-Options nosniff;
        error_page 403 405 = @stored;
    }
    location @stored { proxy_pass http://flux_files; }
"""
_WHOLE = """\
# Written by flux-api: what is changed here is lost.
daemon off;
pid "@STATE@/nginx.pid";
error_log stderr warn;
worker_processes auto;
worker_rlimit_nofile 16384;
events { worker_connections 4096; }
http {
access_log off;
client_body_temp_path "@STATE@/body";
proxy_temp_path "@STATE@/proxy";
fastcgi_temp_path "@STATE@/fastcgi";
uwsgi_temp_path "@STATE@/uwsgi";
scgi_temp_path "@STATE@/scgi";
@SITE@}
"""


@dataclass(frozen=True)
class Site:
    """What stands in the configuration: addresses as HOST:PORT."""

    listen: str
    """Where callers come in."""
    instances: tuple[str, ...]
    """The APIs; the place is the number in the ids that each makes."""
    files: str
    """The file server."""
    certificate: tuple[Path, Path] | None = None
    """The TLS certificate with its chain, and its key; HTTP without."""
    folder: Path | None = None
    """Where pictures lie, if nginx is to serve them itself."""
    outer_proxies: int = 0
    """Proxies in front of this one, which say where a request comes from."""
    body_mb: int = 64
    """The largest body that the servers take, in MiB."""
    seconds: int = 300
    """How long an answer may be waited for."""


def site_text(site: Site) -> str:
    """The part for nginx's http block."""
    parts = {
        "LISTEN": _listen(site),
        "FILES": site.files,
        "SERVERS": _servers(site.instances),
        "AFTER": "".join(_after(site.instances)),
        "OF_JOB": "" if len(site.instances) == 1 else _of_job(site.instances),
        "NEXT_MAPS": _next_maps(site.instances),
        "REFUSALS": refusals_text(),
        "SEALED": SEALED,
        "FIRST": "set $flux_next $flux_first;\n        "
        if len(site.instances) > 1
        else "",
        "NEXT_PLACES": "".join(_next_places(site.instances)),
        "LIMITS": "" if site.outer_proxies else _LIMITS,
        "BODY": str(site.body_mb + 1),
        "SECONDS": str(site.seconds),
        "FORWARDED_FOR": "$proxy_add_x_forwarded_for"
        if site.outer_proxies
        else "$remote_addr",
        "FORWARDED_PROTO": '"$http_x_forwarded_proto, $scheme"'
        if site.outer_proxies
        else "$scheme",
        "PROXIES": str(site.outer_proxies + 1),
        "INSTANCE": " and its number,\n# FLUX_INSTANCE=0 and so on"
        if len(site.instances) > 1
        else "",
        "PICTURES": _PICTURES.replace("@FOLDER@", _quoted(site.folder))
        if site.folder
        else "",
    }
    text = re.sub(r"@([A-Z_]+)@", lambda match: parts[match[1]], _TEMPLATE.read_text())
    return re.sub(r"\n{3,}", "\n\n", text)


def whole_text(site: Site, state: Path) -> str:
    """All of an nginx that anybody may start and that writes into ``state`` alone."""
    return _WHOLE.replace("@STATE@", _quoted(state)).replace("@SITE@", site_text(site))


_LIMITS = """\
    limit_conn flux_at_once 128;
    limit_req zone=flux_pace burst=1000 nodelay;
    limit_conn_status 598;
    limit_req_status 598;
"""


def _quoted(path: Path) -> str:
    """``path`` as it stands between nginx's quotation marks."""
    return re.sub(r'(["\\])', r"\\\1", str(path))


def _listen(site: Site) -> str:
    if site.certificate is None:
        return f"    listen {site.listen};"
    certificate, key = map(_quoted, site.certificate)
    return (
        f"    listen {site.listen} ssl http2;\n"
        f'    ssl_certificate "{certificate}";\n'
        f'    ssl_certificate_key "{key}";\n'
        "    ssl_protocols TLSv1.2 TLSv1.3;\n"
        "    ssl_session_cache shared:flux_tls:10m;\n"
        "    # Plain HTTP on this port.\n"
        "    error_page 497 =308 https://$http_host$request_uri;"
    )


def _servers(instances: tuple[str, ...]) -> str:
    # One that comes back is to be tried soon.
    return "\n".join(
        f"    server {address} max_fails=1 fail_timeout=2s;" for address in instances
    )


def _of_job(instances: tuple[str, ...]) -> str:
    return "".join(
        f'    "~^g{number}-" {address};\n' for number, address in enumerate(instances)
    )


def _after(instances: tuple[str, ...]) -> list[str]:
    """For each instance whom to ask when it hands a request on: first the one of all
    others with the fewest, later the one behind it, or where that one is away, any."""
    if len(instances) == 1:
        return []
    groups = []
    for number in range(len(instances)):
        first, *others = instances[number + 1 :] + instances[: number + 1]
        servers = f"    server {first} max_fails=1 fail_timeout=2s;\n"
        servers += "".join(f"    server {address} backup;\n" for address in others)
        besides = _servers(instances[:number] + instances[number + 1 :])
        groups.append(
            f"upstream flux_besides_{number} {{\n    zone flux_besides_{number} 64k;\n"
            f"    least_conn;\n{besides}\n}}\n"
            f"upstream flux_after_{number} {{\n    zone flux_after_{number} 64k;\n"
            f"{servers}}}\n"
        )
    return groups


def _next_maps(instances: tuple[str, ...]) -> str:
    if len(instances) == 1:
        return ""
    # $upstream_addr has all that were asked, with a colon where one handed on.
    first, skipped, last = [], [], []
    for number, address in enumerate(instances):
        before = instances[number - 1]
        first.append(f'    "~^(?:\\S+, )*{address}$" flux_besides_{number};\n')
        skipped.append(
            f'    "~^(?:\\S+, )*{address} :.*\\b{before}$" flux_after_{number};\n'
        )
        last.append(f'    "~\\b{address}$" flux_after_{number};\n')
    lines = "".join((*first, *skipped, *last))
    return f"""
# A full instance's request goes on. One with an Idempotency-Key does not: only where it
# began it is known. Nor do the page's, see above.
map "$http_idempotency_key $http_x_job_id" $flux_first {{
    default "";
    "~^ (?!page-)" "@next1";
}}
# To the one of the others with the fewest: one that loads has none, so it comes
# first each time. Then to the one behind, passing over the first: each is asked once.
map $upstream_addr $flux_after {{
    volatile;
    default flux_any;
{lines}}}
"""


def _next_places(instances: tuple[str, ...]) -> list[str]:
    """A place for each further instance; the last one's answer is the caller's."""
    count = min(len(instances) - 1, MOST_NEXT)
    places = []
    for number in range(1, count + 1):
        following = f"@next{number + 1}" if number < count else ""
        places.append(
            f"    location @next{number} {{\n"
            f'        set $flux_next "{following}";\n'
            "        proxy_pass http://$flux_after;\n    }\n"
        )
    return places
