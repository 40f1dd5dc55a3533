"""For which versions of Python all dependencies have wheels.

python -m scripts.wheels 3.11 3.14

pip resolves them for this machine's platform, and installs nothing. It reads markers
(``; python_version < "3.12"``) as for the Python that runs it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = (
    "requirements-dev.txt",
    "requirements-fp8.txt",
    "requirements-gguf.txt",
    "requirements-heif.txt",
    "requirements-c2pa.txt",
    "requirements-ray.txt",
)


def resolve(python: str, *wanted: str) -> bool:
    """Whether pip finds a wheel of everything ``wanted``, for that version."""
    with tempfile.TemporaryDirectory() as nowhere:
        command = [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"),
            *("--ignore-installed", "--only-binary=:all:", "--target", nowhere),
            *("--python-version", python, *wanted),
        ]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        return run.returncode == 0


def pins() -> list[str]:
    """Every ``name==version`` that the files name, with the files that they include."""
    found: dict[str, None] = {}
    files = list(FILES)
    for name in files:
        for line in (ROOT / name).read_text("utf-8").splitlines():
            words = line.partition("#")[0].split()
            if words[:1] == ["-r"]:
                files.append(words[1])
            elif words:
                found[words[0]] = None
    return list(found)


def lacking(python: str) -> list[str]:
    """What has no wheel for that version, by itself or by what it needs."""
    if resolve(python, *[word for name in FILES for word in ("-r", name)]):
        return []
    return [pin for pin in pins() if not resolve(python, pin)] or ["all together"]


def main(versions: list[str]) -> int:
    """Print a line for each version; 1 where one lacks something."""
    missing = {}
    for python in versions:
        missing[python] = lacking(python)
        said = ", ".join(missing[python])
        print(python, f"lacks: {said}" if said else "has all wheels", flush=True)
    return int(any(missing.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["3.11", "3.12", "3.13", "3.14"]))
