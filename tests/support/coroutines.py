"""Coroutines in tests that are none."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor


def run_coroutine(coroutine):
    """Its result. In a thread of its own: in this one a loop may run already, that of
    the browser which another test has opened."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()
