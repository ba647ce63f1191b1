"""What the package reaches on the device that JAX finds, within a few minutes.

python -m benchmarks.device --minutes 5 --json OUT
python -m benchmarks.report --page OUT

It needs jax, flax, optax, orbax, transformers and numpy, and for the rivals torch; neither data nor weights. Parts are
measured in the order of their value, each within its own time, and OUT is written after every row. A part that fails
or takes too long is named in OUT, and the next one is measured.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.device.parts import PARTS
from benchmarks.device.supervise import Document, measure
from metarec_jax.core.atomic_files import make_folder, write_text


def main(given: Sequence[str] | None = None) -> int:
    """The command line; the exit status is 0 where any program was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {'; '.join(PARTS)}; all where there is none")
    parser.add_argument("--minutes", type=float, default=5.0, help="the most minutes that it may take")
    parser.add_argument("--json", type=Path, required=True, help="where to write the results")
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes, to see that it runs")
    chosen = parser.parse_args(given)
    if unknown := [name for name in chosen.parts if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are: {'; '.join(PARTS)}")
    if not chosen.minutes > 0:
        parser.error(f"--minutes {chosen.minutes:g}: give a number above 0")
    make_folder(chosen.json.parent)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the worker is ended, too

    def write(found: dict[str, Any]) -> None:
        write_text(chosen.json, json.dumps(found, indent=1) + "\n")

    names = chosen.parts or list(PARTS)
    document = Document(names, write)
    measure(names, 60 * chosen.minutes, document, smoke=chosen.smoke)
    for name, part in document.found["parts"].items():
        if part["error"]:
            print(f"{name}: {part['error']}", file=sys.stderr)
    rows = [row for row in document.found["rows"] if row["seconds"]]
    print(f"{chosen.json}: {len(rows)} programs were measured")
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
