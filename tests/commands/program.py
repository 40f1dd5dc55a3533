"""The real program, to its end or in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.servers import QUIET, SETTINGS
from tests.support.terminal import in_terminal

COMMAND = [sys.executable, "-m", "flux_api"]
SHOWS = ("COLORTERM", "TERM_PROGRAM", "KITTY_WINDOW_ID", "TMUX", "NO_COLOR")


def environment(**settings):
    """Only ``settings`` of ours, in a terminal that says nothing of pictures."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(SETTINGS) and name not in SHOWS
    }
    own = {name: str(value) for name, value in settings.items()}
    return kept | QUIET | {"TERM": "xterm"} | own


def run(folder, *arguments, stdin=b"", **settings):
    """``flux-api`` in ``folder`` to its end; its output is bytes."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=folder,
        env=environment(**settings),
        input=stdin,
        capture_output=True,
        timeout=400,
        check=False,
    )


def terminal(folder, *arguments, stdout=None, **settings):
    """``flux-api`` in ``folder``, in a terminal."""
    return in_terminal(
        [*COMMAND, *map(str, arguments)],
        env=environment(**settings),
        cwd=folder,
        stdout=stdout,
    )
