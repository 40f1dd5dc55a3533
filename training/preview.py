"""Write the map of a model's previews, which servers would fit anew at each start.

The file ships beside the weights; it is for this autoencoder's encoder alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from training.export import write_preview, write_sums


def main() -> None:
    """Write the file into a model's folder, and its sum."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    write_preview(options.model)
    write_sums(options.model)


if __name__ == "__main__":
    main()
