"""What the plan counts for a picture is what torch's meta device measures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flux_api.loading.footprint import GIB, build_empty, describe, footprint_of
from flux_api.loading.plan import Machine, plan_memory
from flux_api.models.catalog import MODEL_INFO
from tests.support.meta_peaks import peak_of

TEXT = 512
# Of the smallest model of each architecture, by what its tasks append at most.
TRANSFORMERS = [
    ("flux1", 1),
    ("schnell", 0),
    ("klein-4b", 4),
    ("klein-9b", 4),
    ("flux3-klein", 4),
]


def part(name, component):
    """A component of the set ``name`` in bfloat16, without memory."""
    kind, config = describe(MODEL_INFO[name].base_model)[component]
    module = build_empty(kind, config).to(torch.bfloat16)
    kept = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for path, layer in module.named_modules():
        if not kept.isdisjoint(path.split(".")):
            layer.float()
    return module


def meta(*shape, dtype=torch.bfloat16):
    return torch.empty(*shape, device="meta", dtype=dtype)


def transformer_inputs(module, references):
    """A forward of 1024x1024 with as many references."""
    config, tokens = module.config, 64 * 64
    size = {"flux1": (4096, 3)}.get(_family(module), (0, 4))
    width = size[0] or config.joint_attention_dim
    own = tokens if _family(module) == "flux3" else tokens * (1 + references)
    batch = () if _family(module) != "flux2" else (1,)
    inputs = {
        "hidden_states": meta(1, own, config.in_channels),
        "encoder_hidden_states": meta(1, TEXT, width),
        "timestep": meta(1),
        "img_ids": meta(*batch, own, size[1]),
        "txt_ids": meta(*batch, TEXT, size[1]),
        "return_dict": False,
    }
    if _family(module) == "flux1":
        inputs["pooled_projections"] = meta(1, 768)
    if getattr(config, "guidance_embeds", False):
        inputs["guidance"] = meta(1, dtype=torch.float32)
    if _family(module) == "flux3":
        inputs["target_timestep"] = meta(1)
        if references:
            shape = (1, tokens * references, config.cond_in_channels)
            inputs["image_cond_hidden_states"] = meta(*shape)
            inputs["image_cond_ids"] = meta(tokens * references, 4)
    return inputs


def _family(module):
    kinds = {"FluxT": "flux1", "Flux2": "flux2", "Flux3": "flux3"}
    return kinds[type(module).__name__[:5]]


@pytest.mark.parametrize(("name", "references"), TRANSFORMERS)
def test_a_transformer_takes_what_is_counted(name, references):
    module = part(name, "transformer")
    working = footprint_of(MODEL_INFO[name]).working
    for count, counted in (
        (references, working.denoise),
        (min(1, references), working.with_one),
    ):
        inputs = transformer_inputs(module, count)
        measured = peak_of(module, module.forward, **inputs)
        assert measured <= counted <= 1.15 * measured, (count, measured / GIB)


@pytest.mark.parametrize("name", ["flux1", "klein-4b"])
def test_a_vae_takes_what_is_counted(name):
    vae, working = part(name, "vae"), footprint_of(MODEL_INFO[name]).working
    latent = vae.config.latent_channels
    decoded = peak_of(vae, vae.decode, z=meta(1, latent, 128, 128))
    assert 0.95 * decoded <= working.decode <= 1.05 * decoded
    # Its encoder reads references and takes less.
    assert peak_of(vae, vae.encode, x=meta(1, 3, 1024, 1024)) < working.decode
    vae.enable_tiling()
    # In tiles of the default size a large picture takes about as much as that.
    large = peak_of(vae, vae.decode, z=meta(1, latent, 160, 160))
    assert large < 1.1 * decoded


def test_a_text_encoder_takes_what_is_counted():
    encoder = part("flux1", "text_encoder_2")
    tokens = meta(1, TEXT, dtype=torch.long)
    measured = peak_of(encoder, encoder.forward, input_ids=tokens)
    assert measured <= footprint_of(MODEL_INFO["flux1"]).working.encode


@pytest.mark.parametrize(
    ("name", "gib", "offload", "there"),
    [
        ("klein-4b", 15, "text", ("transformer", "vae")),
        ("klein-4b", 23, "none", ("text_encoder", "transformer", "vae")),
        ("klein-9b", 23, "text", ("transformer", "vae")),
        ("schnell", 30, "text", ("transformer", "vae")),
        (
            *("schnell", 46, "none"),
            ("text_encoder", "text_encoder_2", "transformer", "vae"),
        ),
    ],
)
def test_the_peak_of_a_plan_is_its_weights_and_its_widest_stage(
    name, gib, offload, there
):
    """Added up anew: what is ``there``, and what drawing takes beside it."""
    footprint = footprint_of(MODEL_INFO[name])
    plan = plan_memory(footprint, Machine(gib * GIB, 64 * GIB))
    assert (plan.quantization, plan.offload) == ("none", offload)
    parts = {component: part(name, component) for component in there}
    weights = sum(2 * p.numel() for m in parts.values() for p in m.parameters())
    transformer, vae = parts["transformer"], parts["vae"]
    inputs = transformer_inputs(transformer, dict(TRANSFORMERS)[name])
    latents = meta(1, vae.config.latent_channels, 128, 128)
    widest = max(
        peak_of(transformer, transformer.forward, **inputs),
        peak_of(vae, vae.decode, z=latents),
    )
    assert weights + widest <= plan.peak <= 1.03 * (weights + widest)


def test_what_the_libraries_leave_whole_is_counted_whole():
    """T5's last matrix of each block, and the Redux prior."""
    parts = footprint_of(MODEL_INFO["flux1"]).parts
    [encoder] = [p for (_, name), p in parts.items() if name == "text_encoder_2"]
    wo = 24 * 10240 * 4096
    assert encoder.rest >= wo
    assert encoder.bytes_in("nf4", 2) > 1.87 * GIB + (encoder.linear // 2)
    prior = footprint_of(MODEL_INFO["flux1"]).of_priors()
    assert prior == pytest.approx(0.92 * GIB, rel=0.02)
    alone = replace(MODEL_INFO["flux1"], tasks={})
    assert footprint_of(alone).of_priors() == 0
