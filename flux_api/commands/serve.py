"""``serve``: the API and the file server together, until Ctrl-C.

Starts them, shows the loading, prints the addresses and a first command, keeps them
running and stops them. What is set in the environment goes through to them.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from flux_api.commands.fleet import Fleet, Server, say
from flux_api.commands.instances import (
    GUNICORN,
    Layout,
    find_nginx,
    is_local,
    list_gpus,
    local,
)
from flux_api.models.offered import offered_models
from flux_api.settings import Settings

MOST_INSTANCES = 64
API = "flux_server.wsgi:app"
NO_NGINX = """\
flux-api: nginx is missing, which stands in front of several instances. Install it:
  apt-get install nginx-light      Debian, Ubuntu
  dnf install nginx                Fedora, RHEL
  apk add nginx                    Alpine"""


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Address(click.ParamType[str]):
    """HOST:PORT."""

    name = "host:port"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """``value`` where it is one."""
        host, _, port = value.rpartition(":")
        if host and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:
            return value
        self.fail(f"{value!r} is not HOST:PORT", param, ctx)


@click.command()
@click.option(
    "--bind",
    type=Address(),
    default="127.0.0.1:8000",
    help="Where callers come in.",
)
@click.option(
    "--files-bind",
    type=Address(),
    default="127.0.0.1:8010",
    help="Where the file server listens.",
)
@click.option(
    "--gpus",
    type=click.Choice(["all"]),
    help="One instance for each GPU, or each in CUDA_VISIBLE_DEVICES; nginx in front.",
)
@click.option(
    "--instances",
    type=click.IntRange(1, MOST_INSTANCES),
    help="As many instances, without a GPU of its own for each; nginx in front.",
)
@click.option(
    "--first-port",
    type=click.IntRange(1, 65535 - MOST_INSTANCES),
    default=8100,
    help="The first instance's on 127.0.0.1; the others' follow.",
)
@click.option(
    "--tls",
    type=(_FILE, _FILE),
    metavar="CERTIFICATE KEY",
    help="Files for HTTPS at --bind; with --gpus or --instances.",
)
@click.option(
    "--print-nginx",
    is_flag=True,
    help="Print nginx's configuration for these options, and start nothing.",
)
def serve(
    bind: str,
    files_bind: str,
    gpus: str | None,
    instances: int | None,
    first_port: int,
    tls: tuple[Path, Path] | None,
    print_nginx: bool,
) -> int:
    """Run the API and the file server until Ctrl-C.

    Settings are environment variables: FLUX_MODEL chooses the model, the README has
    all of them. With --gpus or --instances several APIs stand behind one address: TERM
    ends all when their pictures are done, HUP updates one after the other.

    \b
    flux-api serve
    FLUX_MODEL=klein-4b flux-api serve --bind 0.0.0.0:8000
    FLUX_MODEL=klein-4b flux-api serve --gpus all --bind 0.0.0.0:8000
    """
    environ: Mapping[str, str] = click.get_current_context().obj
    # What is wrong is told before anything starts.
    offered_models(Settings.from_env(environ))
    if gpus and instances:
        raise click.UsageError("--gpus and --instances exclude each other")
    if not (gpus or instances or print_nginx):
        if tls:
            raise click.UsageError("--tls needs --gpus or --instances")
        return serve_one(bind, files_bind, environ)
    devices = list_gpus(environ) if gpus else (None,) * (instances or 1)
    if not devices:
        say("CUDA shows no GPU here: 'flux-api doctor' says more; try --instances 1")
        return 1
    tls = tls and (tls[0].resolve(), tls[1].resolve())
    layout = Layout(bind, files_bind, first_port, devices, tls, environ)
    if print_nginx:
        click.echo(layout.nginx_text(), nl=False)
        return 0
    return serve_many(layout)


def serve_one(bind: str, files_bind: str, environ: Mapping[str, str]) -> int:
    """Run one API, reached without a proxy, and the file server; the exit status."""
    if not are_free([("API", bind), ("file server", files_bind)]):
        return 1
    api, files = f"http://{local(bind)}", f"http://{local(files_bind)}"
    given = {**environ, "FILE_SERVER": environ.get("FILE_SERVER") or files}
    warn_of_urls(bind, files, environ)
    fleet = Fleet([api_server("API", bind, given)], files_server(files_bind, given))
    return tend(fleet, api, files)


def serve_many(layout: Layout) -> int:
    """Several instances behind nginx until TERM or Ctrl-C; the exit status."""
    nginx = find_nginx(layout.environ)
    if nginx is None:
        print(NO_NGINX, file=sys.stderr)
        return 1
    if not are_free(layout.listeners):
        return 1
    if not (layout.settings.api_keys or is_local(layout.bind)):
        say("anybody who reaches this port can use it: set FLUX_API_KEYS")
    warn_of_urls(layout.bind, layout.url, layout.environ)
    instances = [
        api_server(f"instance g{number}", address, layout.api_environ(number))
        for number, address in enumerate(layout.instances)
    ]
    files = files_server(layout.files_bind, layout.files_environ())
    front = Server("nginx", layout.nginx_command(nginx), layout.environ)
    fleet = Fleet(instances, files, front, nginx_url=layout.url)
    return tend(fleet, layout.url, layout.url)


def api_server(name: str, address: str, environ: Mapping[str, str]) -> Server:
    """An API as ``name``."""
    command = [*GUNICORN, "-b", address, API]
    return Server(name, command, environ, f"http://{local(address)}")


def files_server(address: str, environ: Mapping[str, str]) -> Server:
    """The file server."""
    command = [*GUNICORN, "-b", address, "file_server:create_app()"]
    return Server("file server", command, environ)


def tend(fleet: Fleet, api: str, files: str) -> int:
    """Run all until somebody asks for the end; the exit status. ``api`` and ``files``
    are what callers are told."""
    model = None
    try:
        fleet.start()
        while not fleet.is_stopping:
            if model is None:
                if dead := fleet.cannot_start():
                    say(f"the {dead.name} cannot start; its last lines say why")
                    return 1
                if model := fleet.look():
                    environ = click.get_current_context().obj
                    print(welcome(api, files, model, environ), flush=True)
            fleet.tend()
        say("stopping; what runs is finished first")
        return 0
    finally:
        fleet.stop()


def warn_of_urls(bind: str, pictures: str, environ: Mapping[str, str]) -> None:
    """Say so where others are let in at ``bind`` who cannot open ``pictures``, which
    begins the URLs that they get."""
    is_said = environ.get("FILE_SERVER_PUBLIC_URL") or environ.get("FILE_SERVER")
    if not (is_said or is_local(bind)):
        say(
            f"URLs of pictures begin with {pictures}, which only this machine reaches: "
            "set FILE_SERVER_PUBLIC_URL to the address that callers use"
        )


def are_free(listed: Iterable[tuple[str, str]]) -> bool:
    """Whether nobody listens at any of the addresses; else the first is told, with who
    was to listen there."""
    seen: dict[str, str] = {}
    for name, address in listed:
        port = address.rpartition(":")[2]
        if port in seen:
            raise click.UsageError(f"the {seen[port]} and the {name} need own ports")
        seen[port] = name
        if is_taken(address):
            print(
                f"{address} is in use: stop what runs there, or choose another "
                f"address for the {name} (see 'flux-api serve --help').",
                file=sys.stderr,
            )
            return False
    return True


def welcome(api: str, files: str, model: str, environ: Mapping[str, str]) -> str:
    """The addresses, the ``model``, and a command to paste."""
    keys = ("FLUX_API_KEYS", "FLUX_API_KEYS_FILE")
    key = ' -H "Authorization: Bearer $FLUX_KEY"' if any(map(environ.get, keys)) else ""
    return f"""
Flux Imaging API is ready.
  Model         {model}
  Page          {api}/
  API           {api}        (OpenAI SDK: base_url="{api}/v1")
  File server   {files}

Try it:
  curl {api}/process/raw{key} -F "prompt=a red heart" -F seed=7 -o heart.png

Ctrl-C stops it.
"""


def is_taken(address: str) -> bool:
    """Whether something answers at ``host:port``."""
    host, _, port = local(address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False
