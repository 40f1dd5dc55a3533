"""Start a training module in several ranks: python -m training.launch 2 MODULE ..."""

from __future__ import annotations

import sys

from training.ranks import launch

if __name__ == "__main__":
    launch(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
