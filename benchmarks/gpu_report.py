"""What ``benchmarks.gpu_check`` has measured so far, as a page in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Report:
    """The rows so far, by part, written into ``path`` whenever there is another."""

    path: Path
    heading: list[str]
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, part: str, row: dict[str, Any]) -> None:
        """Keep ``row``, and show it."""
        self.rows.setdefault(part, []).append(row)
        print(part, json.dumps(row, ensure_ascii=False), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(self._lines()) + "\n", encoding="utf-8")

    @property
    def failed(self) -> bool:
        """Whether something did not do what it should."""
        results = [row["result"] for rows in self.rows.values() for row in rows]
        return any(str(result).startswith("failed") for result in results)

    def _lines(self) -> Iterator[str]:
        yield from self.heading
        for part, rows in self.rows.items():
            yield from ("", f"## {part}", "")
            columns = list(dict.fromkeys(key for row in rows for key in row))
            yield f"| {' | '.join(columns)} |"
            yield "|---" * len(columns) + "|"
            for row in rows:
                cells = (str(row.get(key, "")).replace("|", "/") for key in columns)
                yield f"| {' | '.join(cells)} |"
