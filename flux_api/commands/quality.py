"""``quality``: what FLUX_PERFORMANCE costs on this machine, measured."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

from flux_api.commands.completion import complete_model
from flux_api.commands.screen import Screen
from flux_api.core import Performance
from flux_api.errors import FluxError
from flux_api.settings import Settings


@click.command()
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=complete_model,
    help="The model that is measured; else FLUX_MODEL.",
)
@click.option(
    "--performance",
    "levels",
    type=click.Choice(["speed", "max"]),
    multiple=True,
    help="Measure this one only.",
)
@click.pass_obj
def quality(
    environ: Mapping[str, str], model: str | None, levels: tuple[Performance, ...]
) -> int:
    """Draw eight pictures with each FLUX_PERFORMANCE and compare them with exact ones.

    The verdict is kept in FLUX_STATE_DIR, and a server that starts there heeds it: what
    is too far from exact, or slower, is not used. Exit code 1 says that something is.

    \b
    flux-api quality --model klein-4b
    """
    own = {"FLUX_LOG_LEVEL": "error", **environ}
    if model:
        own["FLUX_MODEL"] = model
    chosen: tuple[Performance, ...] = levels or ("speed", "max")
    from flux_api.factory import measure_quality

    screen = Screen(sys.stderr, environ, previews=False)
    try:
        found = measure_quality(Settings.from_env(own), chosen, screen.show)
    except FluxError as error:
        screen.say(f"flux-api: {error.message}")
        return 1
    finally:
        # The table is not to begin behind it.
        screen.clear()
    print(f"{'':6} {'PSNR dB':>8} {'SSIM':>7} {'s a picture':>12}")
    print(f"{'exact':6} {'':8} {'':7} {found[chosen[0]].exact_seconds:12.2f}")
    for level, row in found.items():
        why = row.refusal(level)
        print(
            f"{level:6} {row.psnr:8.1f} {row.ssim:7.3f} {row.seconds:12.2f}  "
            f"{f'not used: {why}' if why else 'good'}"
        )
    return int(any(row.is_fault(level) for level, row in found.items()))
