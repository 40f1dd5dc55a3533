"""Flux Imaging API: a self-hosted HTTP server for Flux image generation and editing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flux_api.factory import create_app, get_manager

__all__ = ["create_app", "get_manager"]


def __getattr__(name: str) -> Any:
    """What a server is made with, imported when it is asked for: the command line needs
    none of it, and would start in twice the time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flux_api import factory

    return getattr(factory, name)
