"""Words for pictures: captions, and edit instructions in many wordings."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from training.pictures import PAINTS

PROMPTS = Path(__file__).parent / "evaluation" / "prompts.json"

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
ENDINGS = ("", "", "", "", "", " please", " now", " for me", " this time", " thanks")
THINGS = (
    *("it", "it", "it", "this", "the image", "the picture", "this image"),
    *("this picture", "the emoji", "this emoji", "the icon", "this one", "the drawing"),
    *("everything", "the whole thing", "that"),
)
# An order is said to the picture ("{t}"), a wish names what is wanted.
ORDERS = {
    "mono": (
        "make {t} monochrome|make {t} black and white|make {t} grayscale|"
        "turn {t} black and white|turn {t} grey|convert {t} to grayscale|"
        "convert {t} to black and white|remove the colors|remove all color from {t}|"
        "take the color out of {t}|take away all colours|drop the colors|"
        "desaturate {t}|{t} in black and white|{t} in monochrome|{t} in greyscale|"
        "show {t} in shades of gray|show {t} in grayscale|get rid of the colours|"
        "strip the colour from {t}|remove the saturation|no colors|without color|"
        "monochrome|black and white|grayscale|greyscale|turn {t} into grayscale|"
        "make {t} colorless|render {t} in black and white|let {t} lose its colour"
    ),
    "mirror": (
        "mirror {t}|mirror {t} horizontally|flip {t}|flip {t} horizontally|"
        "flip {t} sideways|flip {t} from left to right|reflect {t}|reflect {t} sideways|"
        "turn {t} to face the other side|make {t} face the other way|"
        "make {t} look the other way|let {t} face the other direction|"
        "exchange left and right|swap the left and right sides|reverse {t} left to right|"
        "switch left with right|show {t} in a mirror|{t} in a mirror|{t} mirrored|"
        "horizontal flip|mirror image|mirrored|flip the left and right of {t}|"
        "turn {t} around horizontally|{t} seen in the mirror|horizontally flipped|"
        "apply a horizontal flip to {t}|reverse {t} horizontally"
    ),
    "rot180": (
        "turn {t} upside down|rotate {t} 180 degrees|rotate {t} by 180 degrees|"
        "flip {t} upside down|put {t} on its head|make {t} upside down|spin {t} halfway|"
        "{t} upside down|upside down|turn {t} on its head|rotate {t} half a turn|"
        "give {t} a half turn|turn {t} by 180 degrees|{t} rotated 180 degrees|"
        "invert {t} vertically by rotating|show {t} upside down|place {t} upside down|"
        "rotate upside down|180 degrees rotation|let {t} stand on its head"
    ),
    "rot90": (
        "rotate {t} 90 degrees|rotate {t} by 90 degrees|rotate {t} to the left|"
        "turn {t} sideways|turn {t} 90 degrees|turn {t} to the left|lay {t} on its side|"
        "put {t} on its side|tip {t} over to the left|rotate {t} a quarter turn|"
        "give {t} a quarter turn|turn {t} by 90 degrees|rotate {t} counterclockwise|"
        "make {t} lie down|{t} rotated 90 degrees|tilt {t} 90 degrees|"
        "90 degrees rotation|turn {t} a quarter to the left|{t} on its side|"
        "make {t} lie on its side"
    ),
    "blur": (
        "blur {t}|make {t} blurry|blur {t} a bit|make {t} fuzzy|make {t} out of focus|"
        "put {t} out of focus|unfocus {t}|soften {t}|soften {t} with a blur|"
        "make {t} soft|add blur|add some blur to {t}|apply a blur to {t}|"
        "apply a gaussian blur|gaussian blur|smooth {t} out|make {t} unsharp|"
        "blur out {t}|let {t} look blurry|let {t} become fuzzy|{t} out of focus|"
        "{t} blurred|blurry|blurred|smear {t}|make {t} less sharp|give {t} a soft blur|"
        "defocus {t}|show {t} blurred|turn {t} blurry|make {t} look hazy"
    ),
    "invert": (
        "invert {t}|invert the colors|invert the colours of {t}|make {t} a negative|"
        "turn {t} into a negative|{t} as a negative|negative|negate the colors|"
        "reverse the colors|use the opposite colors|make every color its opposite|"
        "swap all colors for their opposites|photo negative|inverted colors|"
        "show {t} with inverted colors|convert {t} to a negative|flip the colors|"
        "swap light and dark"
    ),
    "bg": (
        "{c} background|make the background {c}|change the background to {c}|"
        "put {t} on a {c} background|set the background to {c}|turn the background {c}|"
        "on a {c} background|on {c}|with a {c} background|background in {c}|"
        "paint the background {c}|color the background {c}|colour the background {c}|"
        "fill the background with {c}|fill the space behind {t} with {c}|"
        "use a {c} background|replace the background with {c}|a {c} backdrop behind {t}|"
        "replace the white background with {c}|make the backdrop {c}|{c} backdrop|"
        "place {t} in front of {c}|place {t} on {c}|switch the background to {c}|"
        "swap the background for {c}|let the backdrop be {c}|add a {c} background|"
        "give {t} a {c} background|the background should be {c}|show {t} on {c}|"
        "make everything behind {t} {c}|background color {c}|fill the backdrop in {c}|"
        "have a {c} background behind {t}|i want the background in {c}"
    ),
    "white": (
        "white background|remove the background|make the background white|"
        "on a white background|delete the background|clear the background|"
        "put {t} on white|take the background away|no background|on plain white"
    ),
    "paint": (
        "make {t} {c}|paint {t} {c}|color {t} {c}|colour {t} {c}|turn {t} {c}|"
        "change its color to {c}|change the colour to {c}|recolor {t} {c}|"
        "recolor {t} in {c}|recolour {t} to {c}|{t} in {c}|{t} but {c}|{c} instead|"
        "dye {t} {c}|{c} please|give {t} a {c} color|let {t} be {c}|"
        "make {t} {c} instead|use {c} for {t}|tint {t} {c}|a {c} one|{c} version"
    ),
    "style": (
        "in {s} style|make {t} {s} style|convert {t} to {s} style|redraw {t} in {s}|"
        "redraw {t} in {s} style|turn {t} into {s} style|{s} style|{s} version|"
        "{t} in {s} style|change the style to {s}|draw {t} the {s} way|"
        "draw {t} in the style of {s}|use the {s} style|restyle {t} as {s}|"
        "make {t} look like {s}|render {t} in {s}|show {t} in {s} style|redo {t} in {s}|"
        "make {t} {s}|as {s} art|switch to {s} style|give {t} the {s} look|"
        "the {s} version of {t}|repaint {t} in {s} style|turn {t} into {s} art"
    ),
    "replace": (
        "turn {t} into a {n}|replace {t} with a {n}|make {t} a {n}|change {t} to a {n}|"
        "change {t} into a {n}|swap {t} for a {n}|a {n} instead|draw a {n} instead|"
        "make a {n} out of {t}|transform {t} into a {n}|show a {n} instead of {t}"
    ),
    "keep": "keep {t}|the same image|change nothing|leave {t} as it is|copy {t}|{n}",
}
WISHES = {
    "mono": "a black and white version|{t} in greyscale|a grayscale copy|no colours",
    "mirror": "the mirror image of {t}|a mirrored copy|{t} flipped horizontally",
    "rot180": "{t} upside down|{t} turned by 180 degrees|an upside down copy",
    "rot90": "{t} on its side|{t} turned by 90 degrees|a quarter turn to the left",
    "blur": "a blurred copy|{t} blurred|a fuzzy version|{t} with some blur",
    "invert": "a negative|the negative of {t}|{t} with opposite colours",
    "bg": "a {c} background|the background {c}|{t} on {c}|{t} in front of {c}",
    "white": "a white background|{t} on white|no background",
    "paint": "it {c}|a {c} one|{t} in {c}|its color changed to {c}",
    "style": "a {s} version|{t} in {s} style|the {s} version|{t} drawn as {s}",
    "replace": "a {n}|a {n} instead",
    "keep": "the same|{t} unchanged",
}


def clean(text: str) -> str:
    """Return lower-case text with only what the tokenizer knows."""
    kept = re.sub(r"[^a-z0-9' ,-]+", " ", text.lower())
    return re.sub(r"\s+", " ", kept).strip()


def load_prompts() -> dict[str, Any]:
    """Return the fixed evaluation prompts."""
    return json.loads(PROMPTS.read_text())


def _uncoloured(name: str) -> str:
    """Return "heart" for "blue heart", which then can be any other colour."""
    return " ".join(w for w in name.split() if w not in PAINTS) or name


class Writer:
    """Writes captions and instructions, never one that the evaluation uses."""

    def __init__(self, seed: random.Random) -> None:
        """Take the source of randomness, which is part of the training state."""
        self.random = seed
        prompts = load_prompts()
        fixed = [e["prompt"] for k, v in prompts.items() if k != "edits" for e in v]
        self.forbidden = {clean(prompt) for prompt in fixed}
        for wordings in prompts["edits"].values():
            self.forbidden |= {clean(wording.replace("{}", "")) for wording in wordings}

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
            if self.random.random() < 0.7:
                what = pick(STYLED).format(what=what, style=pick(STYLES[style]))
            if kind in CAPTION_OPS:
                what += pick((", ", " ")) + pick(CAPTION_OPS[kind]).format(c=colour)
            if clean(what) not in self.forbidden:
                return clean(what)

    def instruction(self, kind: str, **words: str) -> str:
        """Return one wording of an edit; words are c(olour), s(tyle), n(ame)."""
        pick = self.random.choice
        while True:
            if self.random.random() < 0.2:
                text = pick(POLITE_WANT) + pick(WISHES[kind].split("|"))
            else:
                text = pick(POLITE) + pick(ORDERS[kind].split("|")) + pick(ENDINGS)
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
