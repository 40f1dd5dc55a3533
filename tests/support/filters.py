"""A content filter as an operator writes one, told by words in the prompt."""

from __future__ import annotations

import threading


def review(prompt, image):
    """Refuse what the prompt says, and the red that fake_app makes of seed 255."""
    if "break" in prompt:
        raise RuntimeError(prompt)
    if "stall" in prompt:
        threading.Event().wait()
    if "odd" in prompt:
        return 7
    if "wordy" in prompt:
        return "no " * 1000
    if "paint" in prompt:
        image.paste("white", (0, 0, *image.size))
        return None
    return "too red" if image.getpixel((0, 0))[0] == 255 else None
