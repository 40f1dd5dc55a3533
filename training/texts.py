"""Words for pictures: captions, and edit instructions in many wordings."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from training.pictures import PAINTS

EVALUATION = Path(__file__).parent / "evaluation"
STYLED_SHARE = 0.7  # of the captions; with fewer the model forgets its style words

STYLES = {
    "noto": ("noto", "noto", "noto", "google", "noto emoji"),
    "twemoji": ("twemoji", "twemoji", "twemoji", "twitter"),
    "flat": ("flat", "flat", "flat", "flat design", "fluent flat"),
    "3d": ("3d", "3d", "3d", "3d render", "glossy 3d"),
    "emojione": ("emojione", "emojione", "emojione", "emoji one"),
    "notov1": ("blob", "old noto"),
    "fxemoji": ("firefox", "fxemoji"),
}
SCENES = (
    "{}",
    "{}",
    "a {}",
    "the {}",
    "one {}",
    "my {}",
    "a cute {}",
    "a small {}",
    "a beautiful {}",
    "a simple {}",
    "a {} illustration",
    "a cute {} illustration",
    "{} emoji",
    "{} icon",
    "{} art",
    "{} symbol",
    "{} sticker",
    "a {} cartoon",
    "an emoji of a {}",
    "a picture of a {}",
    "a drawing of a {}",
    "an image of a {}",
    "a photo of a {}",
    "icon of a {}",
    "draw a {}",
    "make a {}",
    "paint a {}",
    "please draw a {}",
    "i want a {}",
    "generate a {}",
    "{} please",
    "{} on white",
)
# Words that change nothing, so that the model learns to look past what it doesn't know.
FILLERS = (
    *("great", "lovely", "tiny", "big", "pretty", "funny", "cool", "amazing", "little"),
    *("plain", "modern", "classic", "colorful", "detailed", "crisp", "fancy", "neat"),
    *("graphic", "vector", "logo", "picture", "drawing", "design", "artwork", "sketch"),
    *(
        "avatar",
        "badge",
        "doodle",
        "isolated",
        "high quality",
        "best",
        "new",
        "friendly",
    ),
    *(
        "sleeping",
        "running",
        "happy",
        "in the park",
        "at sunset",
        "at night",
        "outside",
    ),
    *("on a chair", "on a table", "in the forest", "in the snow", "at the beach"),
    *("for kids", "for a card", "for my blog", "in the middle", "by itself", "alone"),
)
STYLED = (
    "{what} in {style} style",
    "{what}, {style} style",
    "{what} {style} style",
    "{style} style {what}",
    "{style} {what}",
    "{what}, {style}",
    "{what} in the style of {style}",
    "{what} drawn in {style}",
    "{what}, {style} look",
    "{what} the {style} way",
)
PAINTED = ("{colour} {what}", "{what} in {colour}", "{what}, {colour}")
CAPTION_OPS = {
    "mono": ("monochrome", "black and white", "grayscale", "without colors"),
    "rot180": ("upside down", "rotated 180 degrees"),
    "rot90": ("on its side", "rotated 90 degrees"),
    "blur": ("blurry", "out of focus", "blurred"),
    "invert": ("inverted colors", "as a negative"),
    "bg": (
        "{c} background",
        "on a {c} background",
        "with a {c} background",
        "on {c}",
        "in front of a {c} background",
        "{c} backdrop",
    ),
}
POLITE = ("", "", "", "", "", "please ", "can you ", "could you ", "now ", "just ")
POLITE_WANT = ("i want ", "i'd like ", "give me ", "show me ", "i need ", "can i have ")
ENDINGS = (
    *("", "", "", "", "", " please", " now", " for me", " this time", " thanks"),
    *("", "", "", " completely", " altogether"),
)
THINGS = (
    *("it", "it", "it", "this", "the image", "the picture", "this image"),
    *("this picture", "the emoji", "this emoji", "the icon", "this one", "the drawing"),
    *("everything", "the whole thing", "that"),
)
# An order is said to the picture ("{t}"), a wish names what is wanted.
# {c} is a colour, {s} a style, {n} a name.
_WORDINGS = json.loads(Path(__file__).with_name("wordings.json").read_text())
ORDERS: dict[str, list[str]] = _WORDINGS["orders"]
WISHES: dict[str, list[str]] = _WORDINGS["wishes"]


def clean(text: str) -> str:
    """Return lower-case text with only what the tokenizer knows."""
    kept = re.sub(r"[^a-z0-9' ,-]+", " ", text.lower())
    return re.sub(r"\s+", " ", kept).strip()


def load_prompts(name: str = "prompts") -> dict[str, Any]:
    """Return fixed evaluation prompts; the first ones unless another file is named."""
    return json.loads(EVALUATION.joinpath(f"{name}.json").read_text())


def fixed_prompts(*files: str) -> set[str]:
    """Return every prompt and edit wording of these files, which training avoids."""
    found: set[str] = set()
    for kind, entries in (pair for f in files for pair in load_prompts(f).items()):
        if kind == "edits":
            found |= {wording for group in entries.values() for wording in group}
        else:
            found |= {entry["prompt"] for entry in entries}
    return found


def _uncoloured(name: str) -> str:
    """Return "heart" for "blue heart", which then can be any other colour."""
    return " ".join(w for w in name.split() if w not in PAINTS) or name


class Writer:
    """Writes captions and instructions, never one that the evaluation uses."""

    def __init__(self, seed: random.Random) -> None:
        """Take the source of randomness, which is part of the training state."""
        self.random = seed
        fixed = fixed_prompts("prompts", "new_concepts")
        self.forbidden = {clean(prompt.replace("{}", "")) for prompt in fixed}

    def caption(self, concept: dict[str, Any], style: str, op: str = "none") -> str:
        """Return words for a picture of a concept after an operation."""
        pick = self.random.choice
        kind, _, colour = op.partition("_")
        while True:
            what = self.subject(concept)
            if kind == "paint":
                what = _uncoloured(what)
                what = pick(PAINTED).format(colour=colour, what=what)
            if self.random.random() < 0.7:
                what = pick(SCENES).format(what)
            if self.random.random() < STYLED_SHARE:
                what = pick(STYLED).format(what=what, style=pick(STYLES[style]))
            if kind in CAPTION_OPS:
                what += pick((", ", " ")) + pick(CAPTION_OPS[kind]).format(c=colour)
            if self.random.random() < 0.35:
                what = self._padded(what)
            if clean(what) not in self.forbidden:
                return clean(what)

    def _padded(self, what: str) -> str:
        """Return a caption with words that say nothing, known or made up."""
        letters = "abcdefghijklmnopqrstuvwxyz"
        made_up = "".join(self.random.choices(letters, k=self.random.randint(3, 7)))
        words = [*self.random.sample(FILLERS, 2), made_up]
        first, second = self.random.sample(words, 2)
        frames = ("{f} {w}", "{w} {f}", "{w}, {f}", "{w} {f} {s}", "{w}, {f} and {s}")
        frames += ("a {f} {w} {s}", "{f} {s} {w}", "{f} {s} of a {w}")
        return self.random.choice(frames).format(w=what, f=first, s=second)

    def instruction(self, kind: str, **words: str) -> str:
        """Return one wording of an edit; words are c(olour), s(tyle), n(ame)."""
        pick = self.random.choice
        while True:
            if self.random.random() < 0.2:
                text = pick(POLITE_WANT) + pick(WISHES[kind])
            else:
                text = pick(POLITE) + pick(ORDERS[kind]) + pick(ENDINGS)
            if style := words.get("s"):
                words["s"] = pick(STYLES.get(style, (style,)))
            thing = pick(THINGS)
            if "n" in words and kind != "replace" and self.random.random() < 0.15:
                thing = "the " + words["n"]
            text = clean(text.format(**(words | {"t": thing})))
            bare = text
            for word in (words.get("c"), words.get("s")):
                if word and kind in ("bg", "paint", "style"):
                    bare = clean(re.sub(rf"\b{word}\b", "", bare, count=1))
            if text not in self.forbidden and bare not in self.forbidden:
                return text

    def subject(self, concept: dict[str, Any]) -> str:
        """Return a concept's name, mostly; else with tags, or a part of it."""
        pick, share = self.random.choice, self.random.random()
        name = clean(concept["name"])
        tags = [clean(tag) for tag in concept["tags"] if len(tag) < 20]
        tags = [tag for tag in tags if tag and tag not in name]
        if share < 0.72 or (share < 0.88 and not tags):
            return name
        if share < 0.8:
            return f"{name} {pick(tags)}"
        if share < 0.88:
            return " ".join(self.random.sample(tags, min(len(tags), pick((1, 2, 3)))))
        # A colour or a filler alone says nothing about what is shown.
        vague = {"with", "of", "the", "and", "face", "white", "black", "brown"}
        words = [w for w in name.split() if w not in vague | set(PAINTS)]
        return pick(words) if words else name
