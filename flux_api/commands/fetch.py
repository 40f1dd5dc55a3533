"""The files of a model, downloaded before the server needs them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence

from flux_api.models.hub import (
    MODULAR_INDEX,
    ModelMissing,
    Report,
    fetch_base,
    fetch_file,
    fetch_modular,
    read_index,
)
from flux_api.models.hub_lock import unlock_commit
from flux_api.models.info import ModelInfo
from flux_api.models.near_names import did_you_mean
from flux_api.models.sources import File, Repository


def fetch_models(names: Sequence[str], models: Mapping[str, ModelInfo]) -> int:
    """Download the models ``names``, telling the progress; the exit status. One that
    cannot be had does not keep the others from coming."""
    status = 0
    unknown = [name for name in names if name not in models]
    if unknown:
        known = ", ".join(models)
        meant = did_you_mean(unknown[0], models)
        said = f"There is no model {unknown[0]!r}: one of {known}.{meant}"
        print(said, file=sys.stderr)
        return 2
    for name in names:
        info = models[name]
        print(f"{name}: {info.description}\n  licence: {info.licence}", flush=True)
        try:
            fetch_model(info, _show)
        except ModelMissing as missing:
            _end_line()
            print(f"{name}: {missing.message}", file=sys.stderr)
            status = 1
        else:
            _end_line()
            print(f"{name}: complete", flush=True)
    return status


def unlock_models(names: Sequence[str], models: Mapping[str, ModelInfo]) -> None:
    """Let the models ``names`` move on to their revisions' newest commits."""
    for info in (models[name] for name in names if name in models):
        for wanted in info.everything:
            source = wanted.source if isinstance(wanted, File) else wanted
            if isinstance(source, Repository):
                unlock_commit(source)


def fetch_model(info: ModelInfo, report: Report) -> None:
    """Everything that ``info`` loads, and nothing else, into the Hub's cache."""
    for source, defaults in info.bases.items():
        if defaults.pipeline.endswith("ModularPipeline"):
            _, index = read_index(source, MODULAR_INDEX, report)
            fetch_modular(source, set(index) - set(info.skip_blocks), report)
        else:
            # The others take these from the model's own checkpoint.
            own = source == info.base_model
            described = _files_of(info, report) if own else ()
            without = () if own else info.shared_components
            fetch_base(source, without, report, described=described)
    for prior in [source for source in info.sources if source not in info.bases]:
        fetch_base(prior, (), report)
    for file in info.lora_files.values():
        fetch_file(file, report)


def _files_of(info: ModelInfo, report: Report) -> Collection[str]:
    """Fetch the model's own files; the components that are in them."""
    if not info.components:
        return ()
    # Imports torch, which takes seconds.
    from flux_api.loading.own_parts import own_parts

    return own_parts(info, report)


def _show(text: str) -> None:
    """One line that is written over on a terminal, a line each elsewhere."""
    start, end = ("\r\x1b[K", "") if sys.stdout.isatty() else ("", "\n")
    print(f"{start}{text}", end=end, flush=True)


def _end_line() -> None:
    if sys.stdout.isatty():
        print()
