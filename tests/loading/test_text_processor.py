"""Chats with pictures, as the one encoder that looks at them wants them."""

from __future__ import annotations

from itertools import groupby

import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
)

from flux_api.loading.text_processor import TextProcessor
from tests.support.tiny_checkpoints import qwen_tokenizer

PLAIN = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}


@pytest.fixture
def processor(tmp_path):
    """One that was saved."""
    qwen_tokenizer().save_pretrained(tmp_path)
    images = Qwen2VLImageProcessorPil(patch_size=16, min_pixels=1, max_pixels=64 * 64)
    images.save_pretrained(tmp_path)
    return TextProcessor.load_with_images(tmp_path)


def chat(*parts):
    return [{"role": "user", "content": list(parts)}]


def text(value):
    return {"type": "text", "text": value}


def picture(*size):
    return {"type": "image", "image": Image.new("RGB", size, "red")}


def test_each_picture_has_the_places_that_it_takes(processor):
    """Two of other sizes: the first comes first."""
    asked = chat(picture(64, 32), text("and"), picture(32, 32), text("a duck"))
    found = processor.apply_chat_template(asked, **PLAIN, add_generation_prompt=True)
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    kinds = found["mm_token_type_ids"][0].tolist()
    assert kinds == [int(token == image) for token in found["input_ids"][0]]
    runs = [len(list(run)) for is_image, run in groupby(kinds) if is_image]
    # A place stands for 32x32 pixels.
    assert runs == [2, 1]
    assert len(found["pixel_values"]) == sum(runs) * 4
    assert processor.decode(found["input_ids"][0]).endswith("assistant")


def test_without_pictures_it_is_the_tokenizers_own(processor):
    for asked in (chat(text("a duck")), [{"role": "user", "content": "a duck"}]):
        found = processor.apply_chat_template(asked, **PLAIN)
        expected = qwen_tokenizer().apply_chat_template(asked, **PLAIN)
        assert torch.equal(found["input_ids"], expected["input_ids"])
        assert "pixel_values" not in found
