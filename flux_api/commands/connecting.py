"""Which API a command speaks to: a server's, or its own in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from flux_api.commands.api import Api
from flux_api.commands.transport import NO_SERVER, REFUSED, Failure, InProcess, Remote
from flux_api.models.near_names import did_you_mean
from flux_api.settings import Settings

# In process there are no strangers, and nobody but this process fetches pictures.
_OWN = (
    *("FLUX_API_KEYS", "FLUX_API_KEYS_FILE", "FLUX_METRICS_BIND"),
    *("FILE_SERVER", "FLUX_RESULTS_MB"),
)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``command`` be told whom to ask."""
    for option in (
        click.option(
            "--key",
            envvar="FLUX_KEY",
            show_envvar=True,
            help="An API key of that server. Rather set the variable: others on this "
            "machine can read a command line.",
        ),
        click.option(
            "--server",
            metavar="URL",
            envvar="FLUX_SERVER",
            show_envvar=True,
            help="A running server, such as http://localhost:8000.",
        ),
    ):
        command = option(command)
    return command


def connect(
    environ: Mapping[str, str], server: str | None, key: str | None, model: str | None
) -> Api:
    """The API of ``server``, else one in this process that draws with ``model``."""
    if server:
        api = Api(Remote(server, key))
        offer = api.capabilities()
        # Pictures are fetched by their jobs, so that a lost connection costs none.
        if not offer["limits"]["keeps_results"]:
            message = "this server keeps no pictures to fetch (FLUX_RESULTS_MB=0)"
            raise Failure(message, NO_SERVER)
        offered = [about["id"] for about in offer["models"]]
        if model and model not in offered:
            # To the server an unknown name is its default model.
            meant = did_you_mean(model, offered)
            message = f"this server offers no {model!r}: one of {', '.join(offered)}"
            message += f".{meant}" if meant else ""
            raise Failure(message, REFUSED)
        return api
    # A server's log is of no use to who waits for a picture.
    own = {"FLUX_LOG_LEVEL": "error", **environ, **dict.fromkeys(_OWN, "")}
    if model:
        own["FLUX_MODEL"] = model
    # Imported where it is needed: it takes a second, which others need not wait for.
    from flux_api.factory import create_app

    return Api(InProcess(create_app(Settings.from_env(own))))
