"""Lines of code: neither blank, nor comment, nor docstring; by package. And the
signature with the most parameters.

python -m scripts.count_lines flux_api file_server
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def count(source: str) -> tuple[int, int]:
    """How many lines of ``source`` are code, and how many hold a comment."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    code = {
        line
        for token in tokens
        if token.type not in _NO_CODE
        for line in range(token.start[0], token.end[0] + 1)
    }
    comments = sum(token.type == tokenize.COMMENT for token in tokens)
    return len(code - _docstrings(source)), comments


def _docstrings(source: str) -> set[int]:
    """The lines of texts that stand alone: docstrings, and those after a constant."""
    return {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def longest_signature(source: str) -> tuple[int, str]:
    """How many parameters the function of ``source`` with the most has, and its name;
    ``self`` and ``cls`` are none, and fields of data classes are no parameters."""
    found = [(0, "")]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = node.args
            names = [arg.arg for arg in own.posonlyargs + own.args + own.kwonlyargs]
            names += [arg.arg for arg in (own.vararg, own.kwarg) if arg is not None]
            found.append((len(set(names) - {"self", "cls"}), node.name))
    return max(found)


def main() -> None:
    """Print a line for each package, the sum, and the longest signature."""
    code: Counter[str] = Counter()
    comments: Counter[str] = Counter()
    longest = (0, "")
    for root in map(Path, sys.argv[1:] or ["."]):
        for path in sorted(root.rglob("*.py")):
            source = path.read_text("utf-8")
            lines, remarks = count(source)
            most, name = longest_signature(source)
            longest = max(longest, (most, f"{path}: {name}"))
            code[str(path.parent)] += lines
            comments[str(path.parent)] += remarks
    for name in code:
        share = 100 * comments[name] / max(1, code[name])
        print(f"{code[name]:6d}  {share:4.1f} comments per 100 lines  {name}")
    print(f"{code.total():6d}  {100 * comments.total() / code.total():4.1f}  in all")
    print(f"{longest[0]:6d}  parameters of the longest signature, {longest[1]}")


if __name__ == "__main__":
    main()
