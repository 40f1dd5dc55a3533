"""LiteLLM's own calls against a server; print_transcripts.py runs this in a virtual
environment of LiteLLM's: ``litellm_calls.py BASE_URL KEY IMAGE MASK``."""

from __future__ import annotations

import logging
import sys

import litellm


def main():
    """A picture, a picture with a header, an edit with a mask, an error."""
    base_url, key, image, mask = sys.argv[1:]
    logging.disable()
    litellm.suppress_debug_info = True
    server = {"api_base": base_url, "api_key": key}
    made = litellm.image_generation(
        *("a red heart", "openai/tiny"), n=2, size="128x128", seed=7, steps=4, **server
    )
    say("image_generation", made)
    made = litellm.image_generation(
        *("a red heart", "openai/gpt-image-1"), extra_headers={"x-team": "a"}, **server
    )
    say("image_generation", made)
    with open(image, "rb") as picture, open(mask, "rb") as area:
        made = litellm.image_edit(
            model="openai/gpt-image-1",
            image=picture,
            mask=area,
            prompt="a green leaf",
            size="96x64",
            seed=7,
            **server,
        )
    say("image_edit", made)
    try:
        litellm.image_generation("a red heart", "openai/tiny", size="63x64", **server)
    except litellm.BadRequestError as error:
        print(f"image_generation: {type(error).__name__}: {error.message}")


def say(call, made):
    """What LiteLLM made of the answer."""
    sizes = [len(item.b64_json or "") for item in made.data]
    print(f"{call}: {type(made).__name__}, b64_json of {sizes} characters,", end=" ")
    print(f"{made.usage.total_tokens} tokens")


if __name__ == "__main__":
    main()
