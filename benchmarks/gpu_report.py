"""What ``benchmarks.gpu_check`` has measured so far: a page in Markdown, and the same
in JSON beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_APART = ("command", "date")
_WEIGHTS = "`make gpu-check`, weights are random."


@dataclass
class Report:
    """The rows so far, by part, written into ``path`` whenever there is another;
    ``facts`` are those of the machine."""

    path: Path
    facts: dict[str, str]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Keep ``row``, and show it."""
        self.rows.setdefault(part, []).append(row)
        print(part, json.dumps(row, ensure_ascii=False), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(self._lines()) + "\n", encoding="utf-8")
        text = json.dumps(self.facts | {"rows": self.rows}, indent=1)
        self.path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")

    @property
    def failed(self) -> bool:
        """Whether something did not do what it should."""
        results = [row["result"] for rows in self.rows.values() for row in rows]
        return any(str(result).startswith("failed") for result in results)

    def _lines(self) -> Iterator[str]:
        versions = [f"{n} {v}" for n, v in self.facts.items() if n not in _APART]
        yield from ("# What the server does on a GPU", "")
        yield f"{self.facts['date']}; {'; '.join(versions)}. " + _WEIGHTS
        for part, rows in self.rows.items():
            yield from ("", f"## {part}", "")
            columns = list(dict.fromkeys(key for row in rows for key in row))
            yield f"| {' | '.join(columns)} |"
            yield "|---" * len(columns) + "|"
            for row in rows:
                cells = (str(row.get(key, "")).replace("|", "/") for key in columns)
                # A library may say it in several lines.
                yield " ".join(f"| {' | '.join(cells)} |".split())
