"""How much of the host's memory a server may take beside its weights."""

from __future__ import annotations

from collections.abc import Iterator

from flux_api.images import decode_child, decoder, sign_child, signing
from flux_api.loading.host_memory import free_host_bytes
from flux_api.loading.prompt_reader import MOST_BYTES
from flux_api.settings import MIB, Settings

# Beside the queue and the watchers, as gunicorn.conf.py has it: pictures that run at
# most, and threads for health and refusals.
_RUNNING, _SPARE = {"local": 16, "ray": 128}, 8


def memory_lines(settings: Settings) -> Iterator[str]:
    """A line for each bound, and their sum; each is a most that is seldom reached."""
    bounds = memory_bounds(settings)
    yield "Memory beside the weights, at most"
    for what, size in bounds.items():
        yield f"  {size / MIB:8,.0f} MiB  {what}"
    yield f"  {sum(bounds.values()) / MIB:8,.0f} MiB  in sum"


def memory_bounds(settings: Settings) -> dict[str, int]:
    """Bytes by what they are for."""
    threads = settings.max_queue + settings.max_watchers
    threads += _RUNNING[settings.backend] + _SPARE
    upload, models = settings.max_upload_mb, settings.max_loaded
    signers = signing.CHILDREN if settings.c2pa_cert is not None else 0
    level, free = settings.performance, free_host_bytes()
    loras = min(settings.lora_cache_mb * MIB, free // 10)
    fused = 0 if level == "exact" else free // 2
    return {
        f"request bodies: FLUX_MAX_UPLOAD_MB={upload} for each of {threads} threads": (
            threads * settings.max_upload_bytes
        ),
        "decoded input pictures: FLUX_DECODED_MB": settings.decoded_mb * MIB,
        f"processes that decode: {decoder.CHILDREN}": (
            decoder.CHILDREN * decode_child.MEMORY_BYTES
        ),
        f"processes that sign: {signers}": signers * sign_child.MEMORY_BYTES,
        "finished pictures: FLUX_RESULTS_MB": settings.results_mb * MIB,
        "encoded prompts and pictures: FLUX_PROMPT_CACHE_MB": (
            settings.prompt_cache_mb * MIB
        ),
        f"tokenized prompts: for each model, FLUX_MAX_LOADED={models}": (
            models * MOST_BYTES
        ),
        f"LoRAs: FLUX_LORA_CACHE_MB for each model, FLUX_MAX_LOADED={models}": (
            models * loras
        ),
        f"weights that LoRAs are fused into: FLUX_PERFORMANCE={level}": fused,
    }
