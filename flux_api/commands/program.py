"""``flux-api`` itself: its commands, and how any of them ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from flux_api.commands.c2pa_cert import c2pa_cert
from flux_api.commands.completion import VARIABLE, complete_model, completion
from flux_api.commands.deploy import deploy
from flux_api.commands.jobs import jobs
from flux_api.commands.pictures import edit, generate, upscale, vary
from flux_api.commands.quality import quality
from flux_api.commands.recipe import recipe
from flux_api.commands.serve import serve
from flux_api.commands.transport import REFUSED, Failure
from flux_api.errors import BadSetting
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.file_sets import with_path
from flux_api.models.info import ModelInfo
from flux_api.models.near_names import did_you_mean
from flux_api.models.toml_file import load_models
from flux_api.settings import Settings

# In GB; far above any card that there is.
_LARGEST_CARD = 10_000


class _Gigabytes(click.ParamType[float]):
    name = "GB"

    def convert(
        self,
        value: str | float,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        try:
            size = float(value)
        except ValueError:
            size = 0.0
        if not 0 < size <= _LARGEST_CARD:
            self.fail(f"expected a number of GB, got {value!r}", param, ctx)
        return size


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
def program() -> None:
    """Make pictures with Flux models, on this machine or on a server.

    \b
    flux-api generate "a red heart" -o heart.png   a picture from words
    flux-api edit heart.png "make it blue"         the same, changed
    flux-api vary heart.png -n 3                   three like it
    flux-api upscale heart.png                     twice as large
    flux-api serve                                 the HTTP server
    flux-api doctor                                what this machine can run
    flux-api quality                               what FLUX_PERFORMANCE costs

    Without a server the model is loaded in this process, anew for each command; the
    settings of the server, such as FLUX_MODEL, count here too. A server keeps it
    loaded:

    \b
    export FLUX_SERVER=http://localhost:8000
    export FLUX_KEY=...                            where the server wants one

    Pictures' names go to standard output, all else to standard error. Ctrl-C cancels
    what was asked for.

    \b
    Exit codes: 0 all is done; 1 something failed; 2 the request is wrong, and the
    message says how; 3 no server, or none that is ready; 130 Ctrl-C.
    """


@program.command()
@click.argument(
    "what",
    required=False,
    metavar="[FILE|FOLDER|MODEL]",
    type=click.Path(path_type=Path),
)
@click.option(
    "--gpu",
    type=_Gigabytes(),
    help="Judge by a card with this much memory instead of this machine's.",
)
@click.pass_obj
def doctor(environ: Mapping[str, str], what: Path | None, gpu: float | None) -> int:
    """Say what this machine has, and which models fit it; or what a file or a folder
    is, a checkpoint or a LoRA, and which model takes it; or all about one model.

    \b
    flux-api doctor
    flux-api doctor klein-4b --gpu 12
    flux-api doctor ~/Downloads/flux1-dev-Q4_K_S.gguf
    """
    settings, models = _settings_and_models(environ)
    # Imported where they are needed: torch takes seconds, which --help should not.
    if what is None:
        if gpu is None:
            _check_settings(settings, environ)
        from flux_api.commands.doctor import examine
        from flux_api.commands.doctor_memory import memory_lines

        click.echo(examine(models, gpu, bounds=[*memory_lines(settings)]))
        return 0
    path, name = what.expanduser(), str(what)
    if name in models and not path.exists():
        from flux_api.commands.doctor import examine_model

        click.echo(examine_model(name, models[name], gpu))
        return 0
    if not path.exists():
        listed = f"one of {', '.join(models)}.{did_you_mean(name, models)}"
        message = f"there is no file or folder {name}, and no such model: {listed}"
        raise Failure(message, REFUSED)
    from flux_api.commands.doctor_file import examine_file

    try:
        like, components = settings.model_like, settings.components
        click.echo(examine_file(path, models, gpu, like=like, components=components))
    except BadSetting as error:
        click.echo(f"flux-api: {error}", err=True)
        return 1
    return 0


@program.command()
@click.argument(
    "models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_model
)
@click.option(
    "--update",
    is_flag=True,
    help="Take the newest commits instead of those downloaded before.",
)
@click.pass_obj
def fetch(environ: Mapping[str, str], models: tuple[str, ...], update: bool) -> int:
    """Download models; continues where it was cut off.

    \b
    flux-api fetch klein-4b
    """
    _, known = _settings_and_models(environ)
    from flux_api.commands.fetch import fetch_models, unlock_models

    if update:
        unlock_models(models, known)
    return fetch_models(models, known)


for _command in (
    *(generate, edit, vary, upscale, recipe, c2pa_cert, deploy),
    *(jobs, serve, quality, completion),
):
    program.add_command(_command)


def _check_settings(settings: Settings, environ: Mapping[str, str]) -> None:
    from flux_api.factory import check_start, slips

    for sentence in slips(settings, environ):
        click.echo(f"flux-api: {sentence}", err=True)
    # Where gunicorn has its worker look for the module of FLUX_FILTER.
    sys.path.append(os.getcwd())
    check_start(settings)


def _settings_and_models(
    environ: Mapping[str, str],
) -> tuple[Settings, Mapping[str, ModelInfo]]:
    # Looked for nowhere by the libraries: these commands load no weights.
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    settings = Settings.from_env(environ)
    models = load_models(settings.model_info, MODEL_INFO)
    like, components = settings.model_like, settings.components
    return settings, with_path(models, settings.model, like, components)[1]


def run(arguments: list[str] | None, environ: Mapping[str, str]) -> int:
    """Run the command that ``arguments`` name (None: the process's own) and return its
    exit code."""
    try:
        code = program.main(
            arguments,
            prog_name="flux-api",
            complete_var=VARIABLE,
            standalone_mode=False,
            obj=environ,
        )
        return int(code or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BadSetting as error:
        click.echo(f"flux-api: {error}", err=True)
        return 2
    except Failure as failure:
        click.echo(f"flux-api: {failure}", err=True)
        return failure.exit_code
