"""Where what outlives a restart lies, as long as no setting says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TOP = Path(__file__).resolve().parents[1]


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """``var`` of a checkout; without one, the :func:`user_folder`."""
    # A wheel brings no pyproject.toml, and its top belongs to every package.
    if (_TOP / "pyproject.toml").exists():
        return _TOP / "var"
    return user_folder(environ)


def user_folder(environ: Mapping[str, str]) -> Path:
    """``flux-imaging-api`` below XDG_STATE_HOME, or ``~/.local/state`` where that is
    unset or relative, which the XDG specification says to ignore."""
    state = Path(environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        state = Path.home() / ".local" / "state"
    return state / "flux-imaging-api"
