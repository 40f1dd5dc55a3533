"""``python -m tests.gpu MODULE ARGUMENTS``: a module run on the simulated GPU."""

from __future__ import annotations

import runpy
import sys

from tests.gpu.simulated import switch_on

if __name__ == "__main__":
    switch_on()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
