"""Model files: a local folder as it is, a Hub repository by its downloaded snapshot.

Downloads go to the Hub's own cache (HF_HOME), continue where they were cut off, and
need HF_TOKEN where a licence must be accepted first.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable
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

from flux_api.errors import Unavailable

logger = logging.getLogger(__name__)

HUB = "https://huggingface.co"
CLASSIC_INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"
# What a snapshot may hold that is never loaded; pickles above all.
_NEVER = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5", "*.onnx*"]
_NEVER += ["*.gguf", "*.fp16.*", "*.md", "*.png", "*.jpg", "*.jpeg", "*.webp"]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_SAY_SECONDS = 1.0
_BAR = 20

Report = Callable[[str], None]


class ModelMissing(Unavailable):
    """The weights cannot be had; the message says what to do, and names no path."""

    code = "model_not_loaded"
    should_retry = False


def short_name(source: str) -> str:
    """``source`` for callers: a Hub id whole, a folder by its last part."""
    return source if _HUB_ID.fullmatch(source) else Path(source).name


def page(source: str) -> str:
    """The page of a Hub repository, where its licence is accepted."""
    return f"{HUB}/{source}"


def fetch_files(source: str, patterns: Iterable[str], report: Report) -> Path:
    """The folder with the files of ``source`` that match ``patterns``, downloaded where
    they are not there yet, with the progress told to ``report``. ModelMissing says what
    to do where they cannot be had."""
    if Path(source).is_dir():
        return Path(source)
    if not _HUB_ID.fullmatch(source):
        raise ModelMissing(f"there is no model folder {short_name(source)!r}")
    try:
        folder = snapshot_download(
            source,
            allow_patterns=list(patterns),
            ignore_patterns=_NEVER,
            tqdm_class=_progress(source, report),
        )
    except GatedRepoError:
        raise ModelMissing(
            f"{source} is gated: accept its licence at {page(source)}, then set "
            f"HF_TOKEN to a token of that account"
        ) from None
    except RepositoryNotFoundError:
        raise ModelMissing(
            f"{source} cannot be found: see {page(source)}; a private or gated model "
            f"needs HF_TOKEN"
        ) from None
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
    return Path(folder)


def cached_folder(source: str) -> Path | None:
    """The downloaded snapshot of a Hub repository, whole or not; None without one."""
    if not _HUB_ID.fullmatch(source):
        return None
    for name in (CLASSIC_INDEX, MODULAR_INDEX):
        found = try_to_load_from_cache(source, name)
        if isinstance(found, str):
            return Path(found).parent
    return None


def read_index(source: str, name: str, report: Report) -> tuple[Path, dict[str, Any]]:
    """The pipeline index ``name`` of ``source`` and the folder that it lies in;
    ModelMissing where there is none."""
    path = fetch_files(source, [name], report) / name
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelMissing(f"{short_name(source)} has no readable {name}") from error
    return path.parent, index


def fetch_base(source: str, without: Iterable[str], report: Report) -> Path:
    """The folder of a classic pipeline with all its components but ``without``."""
    _, index = read_index(source, CLASSIC_INDEX, report)
    skipped = set(without)
    folders = [
        f"{name}/*"
        for name, value in index.items()
        if isinstance(value, list) and value[0] is not None and name not in skipped
    ]
    return fetch_files(source, [CLASSIC_INDEX, *folders], report)


def fetch_modular(
    source: str, wanted: Collection[str], report: Report
) -> dict[str, tuple[Path, str]]:
    """The components of a modular pipeline that are ``wanted``: the folder and the
    subfolder of each, from whichever repository the index names."""
    root, index = read_index(source, MODULAR_INDEX, report)
    places: dict[str, tuple[str, str]] = {}
    for name, value in index.items():
        if isinstance(value, list) and name in wanted:
            spec = value[-1]
            repository = spec.get("pretrained_model_name_or_path") or spec.get("repo")
            subfolder = spec.get("subfolder") or ""
            if (root / subfolder).is_dir() and subfolder:
                repository = str(root)
            elif repository is None:
                continue
            # The index of a local copy may name the folder that it was saved to.
            known = repository == source or not _HUB_ID.fullmatch(repository)
            places[name] = (source if known else repository, subfolder)
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


def _progress(source: str, report: Report) -> type[tqdm]:
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
                report(f"downloading {source}: {draw_bar(self.n, self.total)}")
            return None

    return Told
