"""The table of cards in docs/models.md, made by the planner itself.

python -m scripts.plan_table

writes it into both languages' pages, between the comments ``plans`` and ``end``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flux_api.loading.footprint import GIB, Footprint, footprint_of
from flux_api.loading.plan import Machine, Plan, plan_memory
from flux_api.models.catalog import MODEL_INFO

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"en": ROOT / "docs/models.md", "ja": ROOT / "docs/ja/models.md"}
# As they are sold, in GB; a driver keeps a little for itself.
CARDS = (8, 12, 16, 24, 32, 48, 80)
USABLE = 0.96
RAM = 64
SETS = ("klein-4b", "klein-9b", "flux2-dev", "flux1", "schnell", "flux3-klein")
WORDS = {
    "en": {
        "head": "| set | card | quantization, offload | stays on the card "
        "| peak | RAM |",
        "all": "everything",
        "texts": "text encoders, VAE",
        "vae": "VAE",
        "one": "transformer",
        "some": "{n} of {of} transformers",
        "every": "{of} transformers",
        "model": "one part at a time",
        "group": "VAE, and a layer at a time",
        "no": "does not fit",
        "and": ", ",
        "more": "{card} GB and more",
    },
    "ja": {
        "head": "| セット | GPU | quantization、offload | GPU に置いたままの部分 "
        "| 最大使用量 | RAM |",
        "all": "すべて",
        "texts": "テキストエンコーダー、VAE",
        "vae": "VAE",
        "one": "transformer",
        "some": "transformer {of} つのうち {n} つ",
        "every": "transformer {of} つ",
        "model": "部品を 1 つずつ",
        "group": "VAE と、層を 1 つずつ",
        "no": "収まらない",
        "and": "、",
        "more": "{card} GB 以上",
    },
}


def table(language: str) -> str:
    """The table in Markdown, in ``language``: "en" or "ja"."""
    words = WORDS[language]
    head = words["head"]
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name in SETS:
        lines += _rows(name, words)
    return "\n".join(lines)


def _rows(name: str, words: dict[str, str]) -> Iterator[str]:
    """A line for each way of holding the set, with the cards that it is for."""
    footprint = footprint_of(MODEL_INFO[name])
    if footprint is None:
        raise ValueError(f"{name} has no known sizes")
    found: dict[str, list[int]] = {}
    for card in CARDS:
        plan = plan_memory(footprint, Machine(int(card * USABLE * GIB), RAM * GIB))
        found.setdefault(_way(plan, footprint, words), []).append(card)
    for way, cards in found.items():
        span = words["and"].join(map(str, cards)) + " GB"
        if len(cards) > 1 and cards[-1] == CARDS[-1]:
            span = words["more"].format(card=cards[0])
        yield f"| `{name}` | {span} | {way} |"


def _way(plan: Plan, footprint: Footprint, words: dict[str, str]) -> str:
    """How the set is held, and what that takes."""
    if not plan.fits:
        return f"{words['no']} | | |"
    sizes = f"{plan.peak / GIB:.1f} GiB | {plan.host / GIB:.0f} GiB"
    way = f"`{plan.quantization}`{words['and']}`{plan.offload}`"
    return f"{way} | {_staying(plan, footprint, words)} | {sizes}"


def _staying(plan: Plan, footprint: Footprint, words: dict[str, str]) -> str:
    if plan.offload in ("model", "group"):
        return words[plan.offload]
    if plan.offload == "none" and plan.resident is None:
        return words["all"]
    bases = len(footprint.bases)
    kind = "one" if bases == 1 else "every" if plan.resident is None else "some"
    transformers = words[kind].format(n=plan.resident, of=bases)
    others = words["texts" if plan.offload == "none" else "vae"]
    return others + words["and"] + transformers


def main() -> None:
    """Write the table into both pages."""
    for language, path in PAGES.items():
        text = path.read_text("utf-8")
        made = f"<!-- plans -->\n{table(language)}\n<!-- end -->"
        changed, count = re.subn(
            r"<!-- plans -->.*?<!-- end -->", made, text, flags=re.S
        )
        if count != 1:
            raise SystemExit(f"{path} has no place for the table")
        path.write_text(changed, "utf-8")


if __name__ == "__main__":
    main()
