"""What the tests do not notice: small random faults in the source, one at a time.

python -m scripts.run_mutants 60 --seed 1

A mutant is a line of flux_api or file_server changed by one of cosmic-ray's operators.
Tests run in a copy of the tree; the checkout stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from difflib import unified_diff
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import psutil
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

PACKAGES = ("flux_api", "file_server")
CLUSTER = Path("flux_api", "cluster")
"""Left out where Ray is not installed: no test would run it."""
RUN_SECONDS = 3600
"""A run that takes longer hangs outside of any test: in an import, or at its end."""
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
MARK = "MUTANT_IN"
"""The variable by which the processes of a run are found: servers that tests started
are in sessions of their own, and outlive a run that was killed."""


class Unmeant(ast.NodeTransformer):
    """Takes out of a tree what no test should look at: annotations and protocols (never
    evaluated), ``__repr__``, and what is logged."""

    def visit_ClassDef(self, node):
        if any(ast.unparse(base).startswith("Protocol") for base in node.bases):
            node.body = []
        return self.generic_visit(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node):
        node.returns = None
        if node.name == "__repr__":
            node.body = []
        return self.generic_visit(node)

    def visit_Call(self, node):
        if ast.unparse(node.func).startswith(("logger.", "_logger.")):
            node.args, node.keywords = [], []
        return self.generic_visit(node)


def meaning(source):
    """What ``source`` does, as a text; None where it is no Python."""
    try:
        return ast.dump(Unmeant().visit(ast.parse(source)))
    except SyntaxError:
        return None


def operators():
    """cosmic-ray's operators by name. Left out are those that need arguments, and
    ``is`` for ``==``: of small values both say the same."""
    for name in operator_names():
        operator, kind = get_operator(name), name.rpartition("_")
        odd = {"Is", "IsNot"} & set(kind[0].split("_") + [kind[2]])
        if not operator.arguments() and len(odd) != 1:
            yield name, operator()


def mutable_lines(path):
    """For each line of the file that can be mutated: (operator's name, occurrence)s."""
    nodes, found = list(ast_nodes(get_ast(path.read_text("utf-8")))), defaultdict(list)
    for name, operator in operators():
        places = [at for node in nodes for at in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            found[path, start[0]].append((name, occurrence))
    return found


def draw(root, dice):
    """Mutants in random order, at most one a line, each line as likely as any other:
    (path, line, mutated source)."""
    lines = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if path.parent.relative_to(root) != CLUSTER or find_spec("ray"):
                lines |= mutable_lines(path)
    for path, line in dice.sample(list(lines), len(lines)):
        name, occurrence = dice.choice(lines[path, line])
        source = path.read_text("utf-8")
        try:
            mutated = mutate_code(source, get_operator(name)(), occurrence)
        except AttributeError:
            continue  # cosmic-ray replaces no exception with a dotted name
        if meaning(mutated) not in (None, meaning(source)):
            yield path.relative_to(root), line, mutated


def own_tests(root, path):
    """The files of tests that should notice a fault in ``path``: those of its room, the
    ones that name its module first."""
    room = path.parts[1] if path.parts[0] == "flux_api" else path.parts[0]
    room = "ray" if path.parent == CLUSTER else room
    tests = root / "tests"
    if (tests / room).is_dir():
        files = [*(tests / room).glob("test_*.py")]
    else:
        files = [*tests.glob("test_*.py"), *(tests / "http").glob("test_*.py")]
    name = path.parent.name if path.stem == "__init__" else path.stem
    is_named = re.compile(rf"\b{name}\b").search
    files.sort(key=lambda file: (not is_named(file.read_text("utf-8")), file))
    return [file.relative_to(root).as_posix() for file in files]


def passes(root, patience, *selected):
    """Whether the tests pass in ``root``, each within ``patience`` seconds, and their
    last lines. Afterwards none of the processes that they started is left."""
    command = [
        *(sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"),
        *("-o", f"faulthandler_timeout={patience}"),
        *("-o", "faulthandler_exit_on_timeout=true", *selected),
    ]
    env = os.environ | {MARK: str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=root, env=env, stdout=output, stderr=output
        )
        try:
            passed = process.wait(RUN_SECONDS) == 0
        except subprocess.TimeoutExpired:
            passed = False
        finally:
            end_processes(root)
        output.seek(0)
        return passed, "".join(output.readlines()[-15:])


def end_processes(root):
    """Kill what carries the mark of ``root``."""
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(root):
                process.kill()
        except psutil.Error:
            pass


def copy_tree(root):
    """Copy what git knows or would add, from the current folder to ``root``."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in filter(os.path.lexists, filter(None, listed.stdout.split("\0"))):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        # A link may be to a folder.
        shutil.copy2(name, root / name, follow_symlinks=False)


class Run:
    """Mutants of the tree at ``root``, tried one after another. A test that takes more
    than ``patience`` seconds hangs, which is noticed. ``workers`` processes run those
    of other rooms."""

    def __init__(self, root, patience, workers):
        self.root, self._patience, self._workers = root, patience, workers

    def noticed_by(self, path, mutated):
        """The tests that fail while ``path`` holds ``mutated``; None: none does."""
        own = own_tests(self.root, path)
        # training/ imports neither package: its tests cannot notice.
        others = [f"--ignore={name}" for name in [*own, "tests/training"]]
        # Workers take seconds to start: they pay where there is much to run.
        several = ["-n", str(self._workers), "--dist", "loadfile"]
        source = (self.root / path).read_bytes()
        for by, tests in (
            ("its own tests", own),
            ("the other tests", [*several, *others, "tests"]),
        ):
            (self.root / path).write_text(mutated, "utf-8")
            try:
                passed, output = passes(self.root, self._patience, *tests)
            finally:
                (self.root / path).write_bytes(source)
            if not passed:
                self._need_green(output)
                return by
        return None

    def _need_green(self, output):
        """What failed, by the ``output``, passes without a mutant: else it would notice
        everything. Of tests that hang, or take the interpreter with them, none is
        named."""
        for test in FAILED.findall(output):
            passed, output = passes(self.root, self._patience, test)
            if not passed:
                sys.exit(f"{test} fails without any mutant:\n{output}")


def try_mutants(root, options):
    """Print each mutant's fate, and survivors as diffs; how many of how many."""
    run, survivors, tried = Run(root, options.patience, options.workers), 0, 0
    mutants = draw(root, random.Random(options.seed))
    for tried, (path, line, mutated) in enumerate(islice(mutants, options.count), 1):
        source = (root / path).read_text("utf-8")
        by = run.noticed_by(path, mutated)
        print(f"{tried:4d}  {path}:{line}  {by or 'SURVIVED'}", flush=True)
        if by is None:
            survivors += 1
            texts = source.splitlines(), mutated.splitlines()
            print(*unified_diff(*texts, str(path), lineterm="", n=2), sep="\n")
    return survivors, tried


def main():
    """Try some mutants of the tree in the current folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=60, help="how many")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--patience", type=int, default=300, help="seconds after which a test hangs"
    )
    parser.add_argument(
        "--workers", type=int, default=3, help="processes for tests of other rooms"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder).resolve()
        copy_tree(root)
        survivors, tried = try_mutants(root, options)
    print(f"{survivors} of {tried} mutants survived: {survivors / max(1, tried):.0%}")


if __name__ == "__main__":
    main()
