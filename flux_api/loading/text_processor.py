"""The processors of multimodal text encoders, as far as prompts need them.

The libraries' own ones import torchvision to read videos; a prompt is text, and the
one encoder that looks at pictures takes them as patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BatchFeature

_IMAGE = "<|image_pad|>"


class TextProcessor:
    """A tokenizer with a chat template; with ``images``, an image processor of the
    Qwen family, chats may hold pictures."""

    def __init__(self, tokenizer: Any, images: Any = None) -> None:
        self.tokenizer, self._images = tokenizer, images

    @classmethod
    def load(cls, folder: Path) -> TextProcessor:
        """The processor saved in ``folder``, for texts."""
        return cls(AutoTokenizer.from_pretrained(folder, local_files_only=True))

    @classmethod
    def load_with_images(cls, folder: Path) -> TextProcessor:
        """The processor of a Qwen model saved in ``folder``, for texts and pictures."""
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil,
        )

        processor = cls.load(folder)
        processor._images = Qwen2VLImageProcessorPil.from_pretrained(folder)
        return processor

    def apply_chat_template(self, chat: Any, **options: Any) -> Any:
        """As the tokenizer's; the pictures of ``chat``, parts of the type "image", go
        along as patches."""
        pictures = [
            part["image"]
            for message in chat
            if isinstance(message, dict) and isinstance(message["content"], list)
            for part in message["content"]
            if part["type"] == "image"
        ]
        if not pictures:
            return self.tokenizer.apply_chat_template(chat, **options)
        kept = {k: options[k] for k in _TEMPLATE_OPTIONS if k in options}
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, **kept)
        return self._with_patches(text, pictures)

    def decode(self, *args: Any, **options: Any) -> str:
        """The text of tokens, as the tokenizer itself gives it."""
        text: str = self.tokenizer.decode(*args, **options)
        return text

    def _with_patches(self, text: str, pictures: list[Any]) -> BatchFeature:
        patches = self._images(images=pictures, return_tensors="pt")
        merged = self._images.merge_size**2
        for grid in patches["image_grid_thw"]:
            # Each picture takes one place a merged patch in the text.
            places = "<|placeholder|>" * (int(grid.prod()) // merged)
            text = text.replace(_IMAGE, places, 1)
        text = text.replace("<|placeholder|>", _IMAGE)
        tokens = self.tokenizer(text, return_tensors="pt")
        image_id = self.tokenizer.convert_tokens_to_ids(_IMAGE)
        kinds = (tokens["input_ids"] == image_id).to(torch.long)
        return BatchFeature({**tokens, **patches, "mm_token_type_ids": kinds})


_TEMPLATE_OPTIONS = ("add_generation_prompt", "enable_thinking")
