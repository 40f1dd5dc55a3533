"""The program ``flux-api``; ``python -m flux_api`` is the same."""

from __future__ import annotations

import io
import os
import sys

from flux_api.commands.program import run
from flux_api.commands.signals import end_at_ctrl_c


def main() -> None:
    """Run one command, and end at once: threads that load or run a model are not waited
    for, and the interpreter's own end may abort in one."""
    end_at_ctrl_c()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Files' names go out as they came in, in whatever encoding they are.
        sys.stdout.reconfigure(errors="surrogateescape")
    code = run(None, os.environ)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        pass  # Who read it has seen enough.
    os._exit(code)


if __name__ == "__main__":
    main()
