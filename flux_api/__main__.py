"""Commands for an operator: ``python -m flux_api doctor`` and ``... fetch SET``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from flux_api.errors import BadSetting
from flux_api.models.catalog import MODEL_INFO
from flux_api.models.file_sets import with_path
from flux_api.models.info import ModelInfo
from flux_api.models.toml_file import load_models
from flux_api.settings import Settings

# In GB; far above any card that there is.
_LARGEST_CARD = 10_000


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = parse(arguments)
    # Looked for nowhere by the libraries: these commands load no weights.
    sys.modules.setdefault("bitsandbytes", None)  # type: ignore[arg-type]
    try:
        settings = Settings.from_env(os.environ)
        models = load_models(settings.model_info, MODEL_INFO)
        _, models = with_path(
            models, settings.model, settings.model_like, settings.components
        )
    except BadSetting as error:
        print(f"flux_api: {error}", file=sys.stderr)
        return 2
    if options.command == "doctor" and options.file:
        return _examine_file(options, settings, models)
    if options.command == "doctor":
        from flux_api.commands.doctor import examine

        print(examine(models, options.gpu))
        return 0
    from flux_api.commands.fetch import fetch_sets, unlock_sets

    if options.update:
        unlock_sets(options.sets, models)
    return fetch_sets(options.sets, models)


def _examine_file(
    options: argparse.Namespace, settings: Settings, models: Mapping[str, ModelInfo]
) -> int:
    from flux_api.commands.doctor_file import examine_file

    try:
        report = examine_file(
            options.file.expanduser(),
            models,
            options.gpu,
            like=settings.model_like,
            components=settings.components,
        )
    except BadSetting as error:
        print(f"flux_api: {error}", file=sys.stderr)
        return 1
    print(report)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command and what it is given."""
    parser = argparse.ArgumentParser(prog="python -m flux_api", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser(
        "doctor", help="what this machine has, and which model sets fit it"
    )
    doctor.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="say what this file is, a checkpoint or a LoRA, and which set takes it",
    )
    doctor.add_argument(
        "--gpu",
        type=_gigabytes,
        metavar="GB",
        help="judge by a card with this much memory instead of this machine's",
    )
    fetch = commands.add_parser(
        "fetch", help="download model sets; continues where it was cut off"
    )
    fetch.add_argument("sets", nargs="+", metavar="SET")
    fetch.add_argument(
        "--update",
        action="store_true",
        help="take the newest commits instead of those downloaded before",
    )
    return parser.parse_args(arguments)


def _gigabytes(text: str) -> float:
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size <= _LARGEST_CARD:
        raise argparse.ArgumentTypeError(f"expected a number of GB, got {text!r}")
    return size


if __name__ == "__main__":
    sys.exit(main())
