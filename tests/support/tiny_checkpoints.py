"""Flux checkpoints of a few hundred kilobytes with random weights, made offline.

``build(name, folder)`` writes one that loads with the ordinary ``from_pretrained`` of
its pipeline class; every family of the shipped model sets has one. Widths are tiny,
depths and factors are such that the pipelines' defaults (which hidden layers are read,
sizes in multiples of 16) hold as in life.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

TEXT = 32  # width of FLUX.1's two text encoders
QWEN = 16  # width of the Qwen and Mistral text encoders
IMAGE = 28  # side in pixels of the Redux image encoder's input

ATTENTION = {"attention_head_dim": 16, "num_attention_heads": 2}


def build(name, folder, seed=0):
    """Write checkpoint ``name`` to ``folder``; gives the folder."""
    torch.manual_seed(seed)
    BUILDERS[name]().save_pretrained(str(folder), safe_serialization=True)
    return Path(folder)


# -- tokenizers: one token a byte ---------------------------------------------------


def _byte_letters():
    """The printable letters that stand for the 256 bytes in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(spare)) for b in range(256)]


def clip_tokenizer():
    """CLIP's: each letter alone and at a word's end, 77 positions."""
    from transformers import CLIPTokenizer

    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5_tokenizer():
    """T5's: ASCII pieces with scores, 512 positions."""
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(code), -4.0) for code in range(33, 127)]
    return T5TokenizerFast(
        vocab=pieces, extra_ids=0, additional_special_tokens=[], model_max_length=512
    )


CHAT = (
    "{%- for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{%- if m['content'] is string %}{{ m['content'] }}{%- else %}"
    "{%- for part in m['content'] %}"
    "{%- if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- else %}{{ part['text'] }}{%- endif %}{%- endfor %}{%- endif %}"
    "<|im_end|>\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{%- endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIAL += ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def qwen_tokenizer():
    """Qwen's, with a chat template; it also stands in for Mistral's."""
    from transformers import Qwen2TokenizerFast

    vocabulary = {word: n for n, word in enumerate([*_byte_letters(), *SPECIAL])}
    tokenizer = Qwen2TokenizerFast(
        vocab=vocabulary,
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL[1:],
        model_max_length=8192,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


# -- FLUX.1 -------------------------------------------------------------------------


def _scheduler(*, dynamic):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(
        shift=3.0 if dynamic else 1.0, use_dynamic_shifting=dynamic
    )


def flux1_transformer(*, guidance=True, **channels):
    """FLUX.1's transformer: two blocks of each kind."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        **{"in_channels": 64} | channels | ATTENTION,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=TEXT,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )


def _vae_blocks():
    """Four levels keep the factor of 8 between pixels and latents."""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "mid_block_add_attention": False,
    }


def _flux1_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **_vae_blocks(),
    )


def _clip_encoder(tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT,
            intermediate_size=TEXT,
            projection_dim=TEXT,
            num_hidden_layers=1,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5_encoder(tokenizer):
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT,
            d_kv=8,
            d_ff=TEXT,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            is_encoder_decoder=False,
            use_cache=False,
            dropout_rate=0.0,
        )
    )


def _flux1(pipeline, *, dynamic=True, guidance=True, **channels):
    import diffusers

    # The encoders and the VAE of all FLUX.1 models are the same files.
    torch.manual_seed(1)
    first, second = clip_tokenizer(), t5_tokenizer()
    common = {
        "tokenizer": first,
        "text_encoder": _clip_encoder(first),
        "tokenizer_2": second,
        "text_encoder_2": _t5_encoder(second),
        "vae": _flux1_vae(),
    }
    torch.manual_seed(hash_of(pipeline))
    return getattr(diffusers, pipeline)(
        **common,
        scheduler=_scheduler(dynamic=dynamic),
        transformer=flux1_transformer(guidance=guidance, **channels),
    )


def hash_of(text):
    """A number of ``text`` that is the same in every process."""
    return sum(text.encode())


def _redux():
    from diffusers import FluxPriorReduxPipeline
    from diffusers.pipelines.flux import ReduxImageEncoder
    from transformers import SiglipVisionConfig, SiglipVisionModel
    from transformers.models.siglip.image_processing_pil_siglip import (
        SiglipImageProcessorPil,
    )

    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=IMAGE,
        patch_size=14,
    )
    return FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel(vision),
        feature_extractor=SiglipImageProcessorPil(
            size={"height": IMAGE, "width": IMAGE}
        ),
        image_embedder=ReduxImageEncoder(redux_dim=16, txt_in_features=TEXT),
    )


# -- FLUX.2 -------------------------------------------------------------------------


def flux2_transformer(*, guidance=False):
    """FLUX.2's transformer: two blocks of each kind, text of three stacked layers."""
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        **ATTENTION,
        in_channels=128,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=3 * QWEN,
        timestep_guidance_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )


def _flux2_vae():
    from diffusers import AutoencoderKLFlux2

    return AutoencoderKLFlux2(latent_channels=32, **_vae_blocks())


QWEN_SHAPE = {
    "hidden_size": QWEN,
    "intermediate_size": QWEN,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}


def _klein(pipeline, **options):
    import diffusers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = qwen_tokenizer()
    text = Qwen3Config(
        **QWEN_SHAPE,
        vocab_size=len(tokenizer),
        num_hidden_layers=28,  # layers 9, 18 and 27 are read
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    return getattr(diffusers, pipeline)(
        scheduler=_scheduler(dynamic=True),
        vae=_flux2_vae(),
        text_encoder=Qwen3ForCausalLM(text),
        tokenizer=tokenizer,
        transformer=flux2_transformer(),
        **options,
    )


class Flux2Dev:
    """FLUX.2 dev, whose index names a processor that reads pictures and videos too."""

    def save_pretrained(self, folder, safe_serialization=True):
        """Write the components and ``model_index.json``."""
        _flux2_dev().save_pretrained(folder)
        path = Path(folder, "model_index.json")
        index = read_json(path) | {"tokenizer": ["transformers", "PixtralProcessor"]}
        path.write_text(json.dumps(index))
        named = {"image_processor_type": "PixtralImageProcessor", "patch_size": 14}
        Path(folder, "tokenizer", "preprocessor_config.json").write_text(
            json.dumps(named)
        )


def _flux2_dev():
    from diffusers import Flux2Pipeline
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    tokenizer = qwen_tokenizer()
    text = Mistral3Config(
        text_config={
            **QWEN_SHAPE,
            "model_type": "mistral",
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 31,  # layers 10, 20 and 30 are read
            "max_position_embeddings": 8192,
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": QWEN,
            "intermediate_size": QWEN,
            "num_attention_heads": 2,
            "head_dim": 8,
            "num_hidden_layers": 1,
            "patch_size": 16,
            "image_size": 64,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
    )
    return Flux2Pipeline(
        scheduler=_scheduler(dynamic=True),
        vae=_flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(text),
        tokenizer=tokenizer,
        transformer=flux2_transformer(guidance=True),
    )


# -- FLUX 3 -------------------------------------------------------------------------


def flux3_transformer(*, flow_map=True):
    """FLUX 3's transformer: two blocks of each kind, text of eight stacked layers."""
    from diffusers import Flux3Transformer2DModel

    return Flux3Transformer2DModel(
        **ATTENTION,
        num_layers=2,
        num_single_layers=2,
        joint_attention_dim=8 * QWEN,
        timestep_channels=32,
        axes_dims_rope=(4, 4, 4, 4),
        flow_map=flow_map,
    )


VISION = {
    "depth": 1,
    "hidden_size": QWEN,
    "intermediate_size": QWEN,
    "num_heads": 2,
    "patch_size": 16,
    "out_hidden_size": QWEN,
    "num_position_embeddings": 16,
}


def _token_ids(tokenizer):
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {k: tokenizer.convert_tokens_to_ids(name) for k, name in names.items()}


def qwen3_vl(tokenizer):
    """FLUX 3's text encoder; layers 4, 8, ... 32 are read."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            **QWEN_SHAPE,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 33,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
        vision_config=VISION | {"deepstack_visual_indexes": [0]},
        tie_word_embeddings=True,
        **_token_ids(tokenizer),
    )
    return Qwen3VLForConditionalGeneration(config)


def qwen3_5(tokenizer):
    """FLUX 3's prompt upsampler: one layer of each kind of attention."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    config = Qwen3_5Config(
        text_config={
            **QWEN_SHAPE,
            "head_dim": 16,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 1,
            "linear_num_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
        vision_config=VISION,
        tie_word_embeddings=True,
        **_token_ids(tokenizer),
    )
    return Qwen3_5ForConditionalGeneration(config)


class Flux3:
    """FLUX 3 Image Klein: components in folders under a modular index."""

    def save_pretrained(self, folder, safe_serialization=True):
        """Write the components and ``modular_model_index.json``."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        tokenizer = qwen_tokenizer()
        images = Qwen2VLImageProcessorPil(
            patch_size=16, min_pixels=32 * 32, max_pixels=64 * 64
        )
        parts = {
            "transformer": [flux3_transformer()],
            "vae": [_flux2_vae()],
            "text_encoder": [qwen3_vl(tokenizer)],
            "tokenizer": [tokenizer],
            "prompt_upsampler": [qwen3_5(tokenizer)],
            "prompt_upsampler_processor": [tokenizer, images],
        }
        index = {
            "_class_name": "Flux3DistilledModularPipeline",
            "_blocks_class_name": "Flux3DistilledAutoBlocks",
        }
        for name, saved in parts.items():
            for part in saved:
                part.save_pretrained(f"{folder}/{name}")
            kind = type(saved[0])
            hint = [kind.__module__.partition(".")[0], kind.__name__]
            if name in ("tokenizer", "prompt_upsampler_processor"):
                hint = ["transformers", "AutoProcessor"]
            spec = {"pretrained_model_name_or_path": str(folder), "subfolder": name}
            index[name] = [*hint, spec | {"type_hint": hint}]
        Path(folder, "modular_model_index.json").write_text(json.dumps(index))


# -- LoRAs --------------------------------------------------------------------------


def build_lora(path, transformer, pipeline, *, rank, seed, targets):
    """Write a LoRA over the layers ``targets`` of ``transformer`` to file ``path``."""
    import diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(seed)
    transformer.add_adapter(
        LoraConfig(
            r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False
        )
    )
    path = Path(path)
    getattr(diffusers, pipeline).save_lora_weights(
        str(path.parent),
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        weight_name=path.name,
        safe_serialization=True,
    )
    return path


BUILDERS = {
    "dev": lambda: _flux1("FluxPipeline"),
    "schnell": lambda: _flux1("FluxPipeline", dynamic=False, guidance=False),
    "kontext": lambda: _flux1("FluxKontextPipeline"),
    "fill": lambda: _flux1("FluxFillPipeline", in_channels=384, out_channels=64),
    "redux": _redux,
    "klein": lambda: _klein("Flux2KleinPipeline", is_distilled=True),
    "klein-base": lambda: _klein("Flux2KleinPipeline", is_distilled=False),
    "klein-kv": lambda: _klein("Flux2KleinKVPipeline", is_distilled=True),
    "flux2-dev": Flux2Dev,
    "flux3-klein": Flux3,
}


def read_json(path):
    """The JSON in file ``path``."""
    return json.loads(Path(path).read_text())
