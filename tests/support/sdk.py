"""The official Python SDK's two clients, called alike."""

from __future__ import annotations

import openai
import pytest

from tests.support.coroutines import run_coroutine

SMALL = {"model": "gpt-image-2", "size": "64x64"}
BOTH = pytest.mark.parametrize("kind", ["sync", "async"])


def call(kind, server, action, **options):
    """The result of ``action`` (of a client), by the client of that ``kind``."""
    url = server if isinstance(server, str) else f"{server.url}/v1"
    options = {"api_key": "none", "base_url": url, "max_retries": 0} | options
    if kind == "sync":
        with openai.OpenAI(**options) as client:
            return action(client)

    async def run():
        async with openai.AsyncOpenAI(**options) as client:
            return await action(client)

    return run_coroutine(run())


def stream(kind, server, method, **values):
    """Every event of a streamed ``images.<method>``."""
    if kind == "sync":
        with openai.OpenAI(api_key="none", base_url=f"{server.url}/v1") as client:
            return list(getattr(client.images, method)(stream=True, **values))

    async def run():
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(api_key="none", base_url=url) as client:
            events = await getattr(client.images, method)(stream=True, **values)
            return [event async for event in events]

    return run_coroutine(run())
