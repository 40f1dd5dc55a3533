"""muse with the embedded model, started by ``benchmarks.peers`` in an environment of
its own: python benchmarks/peer_app.py FOLDER PORT."""

from __future__ import annotations

import sys
from functools import partial

from muse.cli_impl.serve_util import run_uvicorn
from muse.core.registry import ModalityRegistry
from muse.core.server import create_app
from muse.modalities.image_generation.routes import MODALITY, build_router
from muse.modalities.image_generation.runtimes.diffusers import DiffusersText2ImageModel


def main() -> None:
    """Serve until told to stop, as one of its workers does."""
    folder, port = sys.argv[1:]
    registry = ModalityRegistry()
    model = DiffusersText2ImageModel(
        hf_repo="tiny",
        local_dir=folder,
        device="cpu",
        dtype="float32",
        model_id="tiny",
        default_size=(64, 64),
    )
    pipeline = model._pipe
    # As many tokens as the text encoders were trained with, not diffusers' 512: else
    # this would measure thirty times as much text.
    length = pipeline.tokenizer_2.model_max_length
    model._pipe = partial(pipeline, max_sequence_length=length)
    registry.register(MODALITY, model)
    app = create_app(registry=registry, routers={MODALITY: build_router(registry)})
    run_uvicorn(app, host="127.0.0.1", port=int(port))


if __name__ == "__main__":
    main()
