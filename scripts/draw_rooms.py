"""The picture in docs/architecture.md: the rooms, who imports whom, a request's way.

python -m scripts.draw_rooms

Arrows come from the table that ``tests/test_imports.py`` holds, so a test can say when
the picture is no longer so.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from tests.test_imports import ROOMS

OUT = Path(__file__).resolve().parents[1] / "docs" / "images" / "architecture.svg"

# Name -> (column, row, what it does); a room stands above those that it imports.
PLACES = {
    "factory": (1, 0, "puts the parts together"),
    "__main__": (3, 0, "flux-api"),
    "blueprints": (1, 1, "routes only"),
    "commands": (3, 1, "the command line"),
    "http": (1, 2, "what every route shares"),
    "engine": (2, 2, "runs a model"),
    "cluster": (0, 2, "has others run it"),
    "net": (0, 3, "sockets out"),
    "queue": (1, 3, "who is next; jobs"),
    "loading": (2, 3, "weights into memory"),
    "images": (0, 4, "bytes to pictures and back"),
    "models": (2, 4, "which sets, where files lie"),
    "settings": (3, 4, "the environment, read once"),
    "metrics": (1, 4, "counters, histograms"),
}
WAY = [
    ("check_page, check_key", "http/cross_site", "who may call at all"),
    ("read_body", "http/bodies", "a form or JSON, bounded"),
    ("Parameters.read", "http/parameters", "each field described once"),
    ("open_job", "http/clients", "its place; 429 or 503 with Retry-After"),
    ("read_inputs", "http/inputs", "pictures, decoded in a process"),
    ("complete", "http/model_defaults", "nothing is optional after this"),
    ("submit", "queue/manager", "the job's turn comes"),
    ("Backend.run", "engine/backend", "data in, callbacks, a picture out"),
    ("encode_prompt, denoise, decode", "engine/steps", "forwards are shared"),
    ("wait_for, follow", "http/clients", "until its pictures are there"),
    ("encode_pictures", "http/pictures", "one file, one list of facts"),
    ("render", "blueprints", "JSON, bytes or events"),
]
WIDTH, HEIGHT, GAP_X, GAP_Y, EDGE = 190, 52, 26, 44, 20
WAY_X = EDGE + 4 * (WIDTH + GAP_X) + 20
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.name { font-weight: 600 }
.note { font-size: 11px; fill: #59636e }
rect { fill: #f6f8fa; stroke: #818b98 }
path { fill: none; stroke: #818b98; stroke-opacity: .55 } marker path { fill: #818b98 }
.way { stroke: #0969da; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .note { fill: #9198a1 }
  rect { fill: #151b23; stroke: #656c76 } path { stroke: #9198a1 }
  marker path { fill: #9198a1 } .way { stroke: #4493f8 }
}
"""


def draw() -> str:
    """The picture as SVG, readable on light and dark pages."""
    height = EDGE * 2 + 5 * (HEIGHT + GAP_Y) - GAP_Y
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {WAY_X + 330} {height}">',
        "<title>The rooms of flux_api, and a request's way</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>',
    ]
    for room, imported in ROOMS.items():
        parts += [
            _arrow(room, other) for other in sorted(imported) if _drawn(room, other)
        ]
    for name, (column, row, note) in PLACES.items():
        x, y = _corner(column, row)
        parts.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        )
        parts.append(_text(x + 10, y + 21, name, "name"))
        parts.append(_text(x + 10, y + 39, note, "note"))
    return "\n".join([*parts, *_way(height), "</svg>", ""])


def _drawn(room: str, other: str) -> bool:
    """The factory imports nearly all: its arrows but one say nothing."""
    known = room in PLACES and other in PLACES
    return known and (room != "factory" or other == "blueprints")


def _corner(column: int, row: int) -> tuple[int, int]:
    return EDGE + column * (WIDTH + GAP_X), EDGE + row * (HEIGHT + GAP_Y)


def _arrow(room: str, other: str) -> str:
    (x1, y1), (x2, y2) = (_corner(*PLACES[name][:2]) for name in (room, other))
    # Not all from one point: towards where they go.
    lean = max(-70, min(70, (x2 - x1) // 4))
    start = x1 + WIDTH // 2 + lean, y1 + HEIGHT
    end = x2 + WIDTH // 2 - lean, y2
    if y1 == y2:
        right = x2 > x1
        start = x1 + (WIDTH if right else 0), y1 + HEIGHT // 2
        end = x2 + (0 if right else WIDTH), y2 + HEIGHT // 2
    bend = (end[1] - start[1]) // 2
    curve = f"{start[0]} {start[1] + bend} {end[0]} {end[1] - bend}"
    path = f"M{start[0]} {start[1]}C{curve} {end[0]} {end[1]}"
    return f'<path d="{path}" marker-end="url(#tip)"/>'


def _way(height: int) -> list[str]:
    step = (height - 2 * EDGE - 20) / len(WAY)
    x = WAY_X + 6
    parts = [
        f'<path class="way" d="M{x} {EDGE + 10}V{height - EDGE}" '
        'marker-end="url(#tip)"/>'
    ]
    for number, (call, file, note) in enumerate(WAY):
        y = round(EDGE + 14 + number * step)
        parts.append(_text(x + 16, y, call, "name"))
        parts.append(_text(x + 16, y + 16, f"{file}: {note}", "note"))
    return parts


def _text(x: int, y: int, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def main() -> None:
    """Write the picture."""
    OUT.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
