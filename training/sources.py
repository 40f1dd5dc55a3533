"""The emoji sets and word lists of the data, with versions and licences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One version-pinned npm package and what its licence asks to be said."""

    package: str
    version: str
    licence: str
    credit: str
    url: str

    @property
    def tarball(self) -> str:
        """Return the file name that `npm pack` gives this package."""
        return f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"


# Sets under a share-alike or non-commercial licence (OpenMoji, EmojiOne 1) stay out.
STYLES = {
    "noto": Source(
        "@iconify-json/noto",
        "1.2.9",
        "Apache-2.0",
        "Noto Emoji, Google Inc.",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "twemoji": Source(
        "@iconify-json/twemoji",
        "1.2.5",
        "CC-BY-4.0",
        "Twemoji, Twitter, Inc and other contributors",
        "https://github.com/twitter/twemoji",
    ),
    "flat": Source(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "Fluent Emoji (flat), Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
    ),
    "3d": Source(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "MIT",
        "Fluent Emoji (3D), Microsoft Corporation, packaged by LobeHub",
        "https://github.com/lobehub/fluent-emoji",
    ),
    "emojione": Source(
        "@iconify-json/emojione",
        "1.2.3",
        "CC-BY-4.0",
        "Emoji One (Colored) 2, EmojiOne / EmojiTwo contributors",
        "https://github.com/EmojiTwo/emojitwo",
    ),
    "notov1": Source(
        "@iconify-json/noto-v1",
        "1.2.5",
        "Apache-2.0",
        "Noto Emoji 1, Google Inc.",
        "https://github.com/googlefonts/noto-emoji",
    ),
    "fxemoji": Source(
        "@iconify-json/fxemoji",
        "1.2.2",
        "Apache-2.0",
        "Firefox OS Emoji, Mozilla",
        "https://github.com/mozilla/fxemoji",
    ),
}
WORDS = {
    "emojibase": Source(
        "emojibase-data",
        "17.0.0",
        "MIT",
        "Emojibase, Miles Johnson",
        "https://github.com/milesj/emojibase",
    ),
    "emojilib": Source(
        "emojilib",
        "4.0.3",
        "MIT",
        "emojilib, Mu-An Chiou and contributors",
        "https://github.com/muan/emojilib",
    ),
}
