"""``python -m benchmarks.charts``: docs/images/bench-NAME.svg for each measurement in
benchmarks/results that a chart is described for here, readable on light and dark
pages."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pygal
from pygal.style import Style

from benchmarks.report import RESULTS

IMAGES = Path("docs", "images")
_CLIENTS = (1, 4, 16, 64)
_WAITING = (1, 10, 100, 1000)
_STYLE = Style(
    background="transparent",
    plot_background="transparent",
    foreground="#59636e",
    foreground_strong="#1f2328",
    foreground_subtle="#d1d9e0",
    opacity="1",
    transition="0s",
    colors=("#0969da", "#bf8700", "#1a7f37"),
    font_family="system-ui, sans-serif",
    title_font_size=17,
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=13,
    value_font_size=13,
)
_MORE_STYLE = """inline:
.axis .guide.line { stroke: none !important }
.title:not(.plot_title) { font-size: 12px !important; fill: #59636e !important }
.text-overlay text { fill: #1f2328 !important; text-anchor: start !important }
@media (prefers-color-scheme: dark) {
  .title, .text-overlay text { fill: #f0f6fc !important }
  .title:not(.plot_title), .axis text, .legends text { fill: #9198a1 !important }
  .axis .line { stroke: #9198a1 !important }
  .color-0 { fill: #4493f8 !important; stroke: #4493f8 !important }
  .color-1 { fill: #d29922 !important; stroke: #d29922 !important }
  .color-2 { fill: #3fb950 !important; stroke: #3fb950 !important }
}
"""


@dataclass(frozen=True)
class Chart:
    """Bars beside each other: by series, which row of the measurement each is, by what
    stands before its bar."""

    title: str
    series: Mapping[str, Mapping[str, str]]


def _by_kind(ending: str) -> dict[str, str]:
    return {k: f"{k}: {ending}" for k in ("64x64, 2 steps", "default settings")}


def _by_clients(way: str) -> dict[str, str]:
    return {f"{n} clients": f"{way}, {n} clients: over serial" for n in _CLIENTS}


def _by_waiting(who: str, what: str) -> dict[str, str]:
    return {f"{n:,} waiting": f"{who}, {n} waiting: {what}" for n in _WAITING}


CHARTS = {
    "overhead": Chart(
        "A picture over HTTP, times the bare pipeline",
        {
            "median": _by_kind("median over median"),
            "least": _by_kind("minimum over minimum"),
            "CPU time": _by_kind("CPU time over CPU time"),
        },
    ),
    "throughput": Chart(
        "Pictures a second, times the bare pipeline one after the other",
        {
            way: _by_clients(way)
            for way in ("one a forward", "shared forwards", "speed")
        },
    ),
    "newcomer": Chart(
        "A small request beside ten or twenty pictures: its wait over a plain lock's",
        {
            "wait": {
                way: f"{way}: over the wait behind a lock"
                for way in ("one a forward", "shared forwards")
            }
        },
    ),
    "encoding": Chart(
        "CPU time of the usual way over ours",
        {
            "times as much": {
                "PNG of 1024x1024": "PNG: usual over ours",
                "JSON reply with it": "JSON reply: usual over ours",
                "Base64 read": "Base64 read: usual over ours",
            }
        },
    ),
    "queue_length": Chart(
        "CPU of a submit by the length of the queue, in ms",
        {who: _by_waiting(who, "a submit") for who in ("many callers", "one caller")},
    ),
    "lora_switches": Chart(
        "A switch between two LoRAs at FLUX.1's depth, in ms",
        {"ms": {"kept": "a switch, kept", "read anew": "a switch, read anew"}},
    ),
    "device_lock": Chart(
        "CPU while an edit holds the device, in ms",
        {
            "ms": {
                name: f"edit of a {name}: CPU while it holds the device"
                for name in ("12 MP photo", "small one")
            }
        },
    ),
    "peers": Chart(
        "A picture over HTTP, times muse's",
        {
            name: {f"{n} steps": f"64x64, {n} steps: {row} over muse's" for n in (2, 8)}
            for name, row in {"median": "median", "CPU time": "CPU time"}.items()
        },
    ),
    "prompt_cache": Chart(
        "Encoding a prompt, in ms",
        {"ms": {"known": "a known prompt", "new": "a new prompt"}},
    ),
    "scaling": Chart(
        "Instances behind nginx: the simulation over what was measured",
        {
            what: {
                f"{n}, {load}": f"{n}, {load}: {what}, simulated over measured"
                for n in (1, 2, 3)
                for load in ("16 clients", "70% busy")
            }
            for what in ("pictures", "wait")
        },
    ),
    "starting": Chart(
        "CPU time until ready, in s",
        {
            "s": {
                "mean": "CPU time until ready, of both processes",
                "least": "the least of them",
            }
        },
    ),
}


def draw(name: str, kept: Mapping[str, Any]) -> str:
    """The chart of ``kept``, what ``benchmarks/results/NAME.json`` holds, as SVG."""
    about, bars = CHARTS[name], 0
    chart = pygal.HorizontalBar(
        title=about.title,
        x_title=f"{kept['date']}, {kept['machine']}, load {kept['load_before']} before",
        show_legend=len(about.series) > 1,
        legend_at_bottom=True,
        legend_at_bottom_columns=3,
        print_values=True,
        print_values_position="top",
        show_x_labels=False,
        margin=20,
        margin_bottom=40,
        spacing=12,
        style=_STYLE,
        css=("file://style.css", "file://graph.css", _MORE_STYLE),
        js=(),
        formatter=lambda value: f"{value:.3g}",
    )
    chart.uuid = name  # Else another one each time.
    values = {row["measure"]: row["value"] for row in kept["rows"]}
    # pygal's bars go upwards.
    chart.x_labels = list(next(iter(about.series.values())))[::-1]
    for series, measures in about.series.items():
        found = [values.get(measures[label]) for label in chart.x_labels]
        if any(value is not None for value in found):
            chart.add(series, found)
            bars += len(found)
    chart.config.width, chart.config.height = (
        760,
        130 + 26 * bars + 20 * len(about.series),
    )
    return _plain(chart.render_tree())


def _plain(root: Any) -> str:
    """Without scripts, which pictures do not run, and without today's date."""
    for parent in list(root.iter()):
        for child in list(parent):
            if not isinstance(child.tag, str) or child.tag.endswith("script"):
                parent.remove(child)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=IMAGES)
    options = parser.parse_args()
    for name in CHARTS:
        file = RESULTS / f"{name}.json"
        if file.exists():
            out = options.images / f"bench-{name}.svg"
            out.write_text(draw(name, json.loads(file.read_text())))
            print(f"written to {out}")


if __name__ == "__main__":
    main()
