"""``deploy ray``: the replicas of a Ray cluster, started, looked at, changed, ended."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

from flux_api.commands.transport import NO_SERVER, REFUSED, Failure
from flux_api.core import MOST_SHARING
from flux_api.errors import Unavailable
from flux_api.settings import Settings

if TYPE_CHECKING:
    from flux_api.cluster.application import Status

# What tells replicas how pictures are made. Keys and tokens are none of it, not even
# the Hub's: the cluster shows what it was given to whoever may ask it.
_PASSED_ON = frozenset(
    {
        *("FLUX_MODEL", "FLUX_MODEL_LIKE", "FLUX_COMPONENTS", "FLUX_MODELS"),
        *("MODEL_INFO", "FLUX_MAX_LOADED", "FLUX_LORA_DIR", "FLUX_QUANTIZATION"),
        *("FLUX_OFFLOAD", "FLUX_MEMORY", "FLUX_BATCH_TOKENS", "FLUX_PERFORMANCE"),
        *("FLUX_STATE_DIR", "FLUX_PROMPT_CACHE_MB", "FLUX_LORA_CACHE_MB"),
        *("FLUX_STEP_TIMEOUT", "FLUX_IDLE_UNLOAD", "FLUX_LOG_LEVEL"),
        *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT"),
        *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"),
    }
)


class _Count(click.ParamType[tuple[int, int]]):
    name = "N|LEAST-MOST"

    def convert(
        self,
        value: str | tuple[int, int],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,3})(?:-([1-9][0-9]{0,3}))?", value)
        least, most = (match[1], match[2] or match[1]) if match else ("1", "0")
        if int(least) > int(most):
            self.fail(f"{value!r} is not a number or a range: 4, or 1-8", param, ctx)
        return int(least), int(most)


def _with_options(command: Callable[..., int]) -> Callable[..., int]:
    """The options of ``start`` and ``update``."""
    for option in (
        click.option(
            "--replicas",
            type=_Count(),
            default="1",
            help="How many, or from how few to how many as the queue asks for.",
        ),
        click.option(
            "--gpus",
            type=click.FloatRange(0),
            default=1.0,
            help="GPUs of each; 0 is the CPU.",
        ),
        click.option(
            "--cpus",
            type=click.FloatRange(0),
            default=1.0,
            help="CPU cores that Ray reserves for each.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def deploy() -> None:
    """Have pictures made by several machines.

    \b
    flux-api deploy ray start --replicas 4
    flux-api deploy ray --help
    """


@deploy.group()
def ray() -> None:
    """Replicas on a Ray cluster, that of RAY_ADDRESS or this machine's.

    \b
    ray start --head                         on the first machine
    ray start --address=HOST:6379            on each further one
    flux-api deploy ray start --replicas 4   one with a GPU each
    FLUX_BACKEND=ray flux-api serve          the API in front

    The settings of this command's environment, such as FLUX_MODEL, are those of the
    replicas.
    """
    if importlib.util.find_spec("ray") is None:
        message = "Ray is not installed: pip install -r requirements-ray.txt"
        raise Failure(message, REFUSED)


@ray.command()
@_with_options
@click.pass_obj
def start(
    environ: Mapping[str, str], replicas: tuple[int, int], gpus: float, cpus: float
) -> int:
    """Start the replicas, and wait until they can draw."""
    if _look().state != "NOT_STARTED":
        message = "It runs already: 'flux-api deploy ray update' replaces it."
        raise Failure(message, REFUSED)
    return _deploy(environ, replicas, gpus, cpus)


@ray.command()
@_with_options
@click.pass_obj
def update(
    environ: Mapping[str, str], replicas: tuple[int, int], gpus: float, cpus: float
) -> int:
    """Replace the replicas by new ones, with the settings and the code of now.

    On the CPU a new one is ready before an old one ends. A card holds one, so there one
    after the other ends first, and callers wait meanwhile.
    """
    return _deploy(environ, replicas, gpus, cpus)


@ray.command()
def status() -> int:
    """Say how many replicas take work; exit code 1 where none does."""
    found = _look()
    click.echo(f"{found.state}: {found.running} running, {found.coming} coming")
    if found.reason:
        click.echo(found.reason)
    return 0 if found.running else 1


@ray.command()
def stop() -> int:
    """End the replicas; what they run is finished."""
    from flux_api.cluster import application

    _look()
    application.stop()
    return 0


def _look() -> Status:
    from flux_api.cluster import application

    try:
        application.connect()
    except Unavailable as error:
        raise Failure(error.message, NO_SERVER) from None
    return application.look()


def _deploy(
    environ: Mapping[str, str], replicas: tuple[int, int], gpus: float, cpus: float
) -> int:
    from flux_api.cluster import application
    from flux_api.factory import manager_of_replica

    settings = Settings.from_env(environ)
    shares = gpus > 0 or settings.performance != "exact"
    slots = MOST_SHARING if shares else 1
    asked = application.Replicas(*replicas, gpus, cpus, slots, settings.max_loaded)
    _look()
    passed = {name: environ[name] for name in _PASSED_ON & environ.keys()}
    try:
        application.deploy(
            manager_of_replica, passed, asked, seconds=settings.request_timeout
        )
    # Numbers that Ray does not take are a ValueError, or an OverflowError.
    except (RuntimeError, ValueError, OverflowError) as error:
        reason = application.look().reason or str(error).splitlines()[0]
        raise Failure(f"the replicas fail: {reason}") from None
    found = application.look()
    click.echo(f"{found.state}: {found.running} running")
    return 0
