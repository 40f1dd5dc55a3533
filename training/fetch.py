"""Fetch the version-pinned npm packages and unpack them."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

from training.sources import STYLES, WORDS, Source


def fetch_packages(folder: Path) -> dict[str, Path]:
    """Return each source's unpacked package folder, fetching what is missing."""
    sources = STYLES | WORDS
    folder.mkdir(parents=True, exist_ok=True)
    missing = [s for s in sources.values() if not (folder / s.tarball).exists()]
    if missing:
        names = [f"{source.package}@{source.version}" for source in missing]
        # npm checks every tarball against the registry's integrity hash itself.
        subprocess.run(["npm", "pack", "--silent", *names], cwd=folder, check=True)
    return {key: _unpack(source, folder) for key, source in sources.items()}


def _unpack(source: Source, folder: Path) -> Path:
    target = folder / source.tarball.removesuffix(".tgz")
    if not target.exists():
        with tarfile.open(folder / source.tarball) as tar:
            tar.extractall(target, filter="data")
    return target / "package"
