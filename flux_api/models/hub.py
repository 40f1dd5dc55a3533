"""Model files: a local folder as it is, a Hub repository by its downloaded snapshot.

Downloads go to the Hub's own cache (HF_HOME), continue where they were cut off, and
need HF_TOKEN where a licence must be accepted first.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from tqdm.auto import tqdm

from flux_api.core import LoadingProgress
from flux_api.errors import Unavailable
from flux_api.models.hub_lock import lock_commit, locked_commit
from flux_api.models.sources import (
    INDEXES,
    File,
    Folder,
    Repository,
    Source,
    is_repository_id,
)

logger = logging.getLogger(__name__)

CLASSIC_INDEX, MODULAR_INDEX = INDEXES
# What a snapshot may hold that is never loaded; pickles above all.
_NEVER = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5", "*.onnx*"]
_NEVER += ["*.gguf", "*.fp16.*", "*.md", "*.png", "*.jpg", "*.jpeg", "*.webp"]
# Often enough to be seen as progress, and to be a sign of life for the watchdog.
_SAY_SECONDS = 1.0
_BAR = 20
_MOST_LISTED = 3

Report = Callable[[str], None]


class ModelMissing(Unavailable):
    """The weights cannot be had; the message says what to do, and names no path."""

    code = "model_not_loaded"
    should_retry = False


def listed(names: Sequence[str]) -> str:
    """The first of ``names``, and how many more there are."""
    shown = ", ".join(names[:_MOST_LISTED])
    more = len(names) - _MOST_LISTED
    return f"{shown} and {more} more" if more > 0 else shown


def fetch_files(
    source: Source,
    patterns: Iterable[str],
    report: Report,
    *,
    without: Iterable[str] = tuple(_NEVER),
) -> Path:
    """The folder with the files of ``source`` that match ``patterns``, downloaded where
    they are not there yet, with the progress told to ``report``. ModelMissing says what
    to do where they cannot be had."""
    if isinstance(source, Folder):
        if source.path.is_dir():
            return source.path
        raise ModelMissing(f"there is no model folder {str(source)!r}")
    with _hub_refusals(source):
        folder = snapshot_download(
            source.id,
            # A branch moves on; what was had once is loaded until an update is wanted.
            revision=locked_commit(source) or source.revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(without),
            tqdm_class=_progress(source, report),
        )
    # A snapshot's folder is named by its commit.
    lock_commit(source, Path(folder).name)
    return Path(folder)


@contextmanager
def _hub_refusals(source: Repository) -> Iterator[None]:
    try:
        yield
    except GatedRepoError:
        raise ModelMissing(
            f"{source} is gated: accept its licence at {source.page}, then set "
            f"HF_TOKEN to a token of that account"
        ) from None
    except RepositoryNotFoundError:
        raise ModelMissing(
            f"{source} cannot be found: see {source.page}; a private or gated model "
            f"needs HF_TOKEN"
        ) from None
    # What the Hub itself says would show a caller paths and request ids.
    except LocalEntryNotFoundError as error:
        logger.debug("not in the cache", exc_info=error)
        raise ModelMissing(
            f"{source} is not downloaded and the Hub is out of reach"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise ModelMissing(f"the Hub answered {status} for {source}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ModelMissing(f"{source} could not be downloaded: {reason}") from error


def fetch_file(file: File, report: Report) -> Path:
    """The path of ``file``, downloaded where it is not there yet; else as
    :func:`fetch_files`."""
    # Named by an operator, it is wanted: a GGUF, or a file saved as fp16.
    path = fetch_files(file.source, [file.name], report, without=()) / file.name
    if not path.is_file():
        raise ModelMissing(f"there is no {file.name!r} in {file.source}")
    return path


def present_folder(source: Source) -> Path | None:
    """The folder of ``source`` as far as it is on this machine, whole or not; None
    where nothing of it is."""
    if isinstance(source, Folder):
        return source.path if source.path.is_dir() else None
    for name in INDEXES:
        revision = locked_commit(source) or source.revision
        found = try_to_load_from_cache(source.id, name, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def is_packed_folder(folder: Path) -> bool:
    """Whether the component in ``folder`` was quantized when it was saved."""
    try:
        return "quantization_config" in (folder / "config.json").read_text("utf-8")
    except OSError:
        return False


def present_file(file: File) -> Path | None:
    """The path of ``file`` where it is on this machine."""
    if isinstance(file.source, Folder):
        path = file.source.path / file.name
        return path if path.is_file() else None
    revision = locked_commit(file.source) or file.source.revision
    found = try_to_load_from_cache(file.source.id, file.name, revision=revision)
    return Path(found) if isinstance(found, str) else None


def read_index(
    source: Source, name: str, report: Report
) -> tuple[Path, dict[str, Any]]:
    """The pipeline index ``name`` of ``source`` and the folder that it lies in;
    ModelMissing where there is none."""
    path = fetch_files(source, [name], report) / name
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelMissing(f"{source} has no readable {name}") from error
    return path.parent, index


def fetch_base(
    source: Source,
    without: Iterable[str],
    report: Report,
    *,
    described: Iterable[str] = (),
) -> Path:
    """The folder of a classic pipeline with all its components but ``without``; of
    those ``described``, whose weights are elsewhere, only the configuration."""
    _, index = read_index(source, CLASSIC_INDEX, report)
    described = list(described)
    skipped = {*without, *described}
    folders = [
        f"{name}/*"
        for name, value in index.items()
        if isinstance(value, list) and value[0] is not None and name not in skipped
    ]
    configs = [f"{name}/config.json" for name in described]
    return fetch_files(source, [CLASSIC_INDEX, *folders, *configs], report)


def fetch_modular(
    source: Source, wanted: Collection[str], report: Report
) -> dict[str, tuple[Path, str]]:
    """The components of a modular pipeline that are ``wanted``: the folder and the
    subfolder of each, from whichever repository the index names."""
    root, index = read_index(source, MODULAR_INDEX, report)
    places: dict[str, tuple[Source, str]] = {}
    for name, value in index.items():
        if isinstance(value, list) and name in wanted:
            spec = value[-1]
            named = spec.get("pretrained_model_name_or_path") or spec.get("repo")
            subfolder = spec.get("subfolder") or ""
            if (root / subfolder).is_dir() and subfolder:
                places[name] = Folder(root), subfolder
            elif named is not None:
                # The index of a local copy may name the folder that it was saved to.
                own = named == str(source) or not is_repository_id(named)
                places[name] = source if own else Repository(named), subfolder
    found = {}
    for name, (repository, subfolder) in places.items():
        pattern = f"{subfolder}/*" if subfolder else "*"
        found[name] = (fetch_files(repository, [pattern], report), subfolder)
    return found


def draw_bar(done: float, total: float) -> str:
    """How much of ``total`` bytes is done, for people."""
    share = min(1.0, done / total)
    full = round(share * _BAR)
    bar = "#" * full + "-" * (_BAR - full)
    return f"[{bar}] {share:.0%} of {total / 2**30:.2f} GiB"


def _progress(source: Source, report: Report) -> type[tqdm]:
    """A progress bar that is told instead of drawn, at most each second."""

    class Told(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._bytes = options.get("unit") == "B"
            self._told = time.monotonic()
            super().__init__(*args, **(options | {"disable": True}))
            self.total = options.get("total")

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            now = time.monotonic()
            if self._bytes and self.total and now - self._told > _SAY_SECONDS:
                self._told = now
                text = f"downloading {source}: {draw_bar(self.n, self.total)}"
                done, total = int(self.n), int(self.total)
                report(LoadingProgress(text, done, total, "bytes"))
            return None

    return Told
