"""Text encoders run as far as they are read, and what is read is the same."""

from __future__ import annotations

import pytest
import torch

from flux_api.engine.prompt_cache import PromptCache
from flux_api.engine.steps import encode_prompt
from tests.support.tiny_checkpoints import QWEN_SHAPE, _flux2_dev, _klein


def deeper(encoder, layers):
    """Another encoder like this one, with random weights in more layers."""
    config = encoder.config.to_dict()
    text = config.get("text_config", config)
    text |= {**QWEN_SHAPE, "num_hidden_layers": layers, "layer_types": None}
    torch.manual_seed(1)
    return type(encoder)(type(encoder.config).from_dict(config)).eval()


@pytest.mark.parametrize(
    ("make", "layers", "read"),
    [(lambda: _klein("Flux2KleinPipeline"), 36, 27), (_flux2_dev, 40, 30)],
    ids=["klein", "dev"],
)
def test_no_layer_runs_behind_the_last_that_is_read(make, layers, read):
    pipeline = make()
    pipeline.text_encoder = encoder = deeper(pipeline.text_encoder, layers)
    with torch.no_grad():
        plain, _ = pipeline.encode_prompt("a red heart", max_sequence_length=32)
    run = []
    inner = getattr(encoder.model, "language_model", encoder.model)
    for number, layer in enumerate(inner.layers):
        layer.register_forward_hook(lambda *_, number=number: run.append(number))
    words = []
    encoder.lm_head.register_forward_hook(lambda _, __, out: words.append(out.shape[1]))
    kwargs = {"prompt": "a red heart", "max_sequence_length": 32}
    cpu = torch.device("cpu")
    found = encode_prompt(pipeline, kwargs, PromptCache(0), None, cpu)["prompt_embeds"]
    assert torch.equal(found, plain)
    # What is kept would else keep the whole way to it, with all that was computed.
    assert not found.requires_grad
    # One more, as what comes out of the last of all is normalised.
    assert run == list(range(read + 1))
    assert words == [1]
    assert (
        len(inner.layers)
        == layers
        == encoder.config.get_text_config().num_hidden_layers
    )
