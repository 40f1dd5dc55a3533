"""Starts the image file server: ``python image_file_server.py``, port 8010."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from file_server import Settings, SettingsError

ROOT = Path(__file__).resolve().parent


def main() -> None:
    """Become the gunicorn that serves until a signal says stop."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(f"image_file_server: {error}")
    command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py")]
    # The current folder stays: settings may name files in it.
    command += ["--pythonpath", str(ROOT), "-b", settings.bind]
    command += ["file_server:create_app()"]
    # What is told to another gunicorn of this machine does not count.
    environ = {k: v for k, v in os.environ.items() if k != "GUNICORN_CMD_ARGS"}
    os.execve(sys.executable, command, environ)


if __name__ == "__main__":
    main()
