"""The maps of previews, kept from start to start: beside the weights of a model that
ships one, else in a folder of the server's own."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flux_api.loading.latent_preview import SIDE, fit

logger = logging.getLogger(__name__)

FILE = "preview.safetensors"
# Another one once the fit itself is another.
_VERSION = "1"
# What pictures go through on their way to latents.
_CONFIG = ("block_out_channels", "scaling_factor", "shift_factor", "batch_norm_eps")
_DECODING = ("decoder.", "post_quant_conv.")


class PreviewFits:
    """Fits in ``folder``, a file a VAE; None keeps none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, vae: Any, shipped: Path | None) -> torch.Tensor:
        """What :func:`~flux_api.loading.latent_preview.fit` gives for ``vae``: out of
        the file ``shipped`` with its model, where it is one for this very VAE, or out
        of the folder, or new."""
        key = encoder_hash(vae)
        own = self._folder / f"{key[:32]}.safetensors" if self._folder else None
        for file in (shipped, own):
            if file is not None and (found := _read(file, key)) is not None:
                return found
        made = fit(vae)
        if own is not None:
            try:
                write_fit(own, key, made)
            # safetensors tells of a full disk in an error of its own.
            except (OSError, SafetensorError) as error:
                logger.warning("FLUX_STATE_DIR cannot be written: %s", error)
        return made


@torch.no_grad()
def encoder_hash(vae: Any) -> str:
    """A name for what ``vae`` makes latents with: the same for its decoder trained
    further, on any device and in any number format."""
    digest = hashlib.sha256(_VERSION.encode())
    for name in _CONFIG:
        digest.update(f"{name}={vae.config.get(name)!r}\n".encode())
    for name, tensor in sorted(vae.state_dict().items()):
        if not name.startswith(_DECODING):
            digest.update(name.encode())
            plain = tensor.to("cpu", torch.bfloat16).flatten().contiguous()
            digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_fit(file: Path, key: str, weight: torch.Tensor) -> None:
    """Keep ``weight`` in ``file``, for the VAE whose encoder's hash is ``key``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all; two workers may write at once.
    partial = file.with_suffix(f".{os.getpid()}.part")
    save_file({"weight": weight}, partial, metadata={"encoder": key})
    partial.replace(file)


def _read(file: Path, key: str) -> torch.Tensor | None:
    """The fit in ``file``; None where there is none for the encoder ``key``."""
    try:
        with safe_open(file, framework="pt") as opened:
            if (opened.metadata() or {}).get("encoder") != key:
                return None
            weight: torch.Tensor = opened.get_tensor("weight")
    except (OSError, SafetensorError):
        return None
    fits = weight.ndim == 2 and weight.shape[1] == 3 * SIDE * SIDE
    return weight if fits and bool(weight.isfinite().all()) else None
