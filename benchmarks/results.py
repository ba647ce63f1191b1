"""Make the committed tables of accuracy anew, with the commands that they name.

python -m benchmarks.results [NAME ...] [--runs FOLDER] [--list]

It evaluates one protocol after another, in hours for all of them, copies tables and plots to `benchmarks/results/`, and
prints the marked blocks of README and docs again. An evaluation that was begun in --runs is continued.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import report

HERE = Path(__file__).with_suffix("")


class Committed(NamedTuple):
    """A committed result.

    Attributes:
        command: arguments of `python -m` that make it; ``{out}`` is the folder or file that the command writes.
        place: folder or file in `benchmarks/results/`.
        files: what is copied from the folder; nothing for a file.
        against: the result, made earlier, with whose evaluation this one is compared in `compare.json`.
    """

    command: str
    place: str
    files: tuple[str, ...] = ()
    against: str = ""


TABLE = ("evaluation.md", "evaluation.json")
_EVALUATE = "metarec_jax evaluate --protocol"
_AMORTISED = "--updater.kind amortised --updater.steps 1"
COMMITTED: Mapping[str, Committed] = {
    "recbole-metarec": Committed(
        f"{_EVALUATE} recbole-metarec --seeds 20 --out {{out}}",
        "recbole-metarec-ml-100k",
        (
            *TABLE,
            "cohorts.json",
            "calibration.json",
            "methods.png",
            "improvement.png",
            "reliability.png",
            "cohorts.png",
        ),
    ),
    "strong-generalisation": Committed(
        f"{_EVALUATE} strong-generalisation --data.kind click --seeds 10 --out {{out}}",
        "strong-generalisation-ml-100k",
        (*TABLE, "methods.png"),
    ),
    "cold-items": Committed(
        f"{_EVALUATE} cold-items --data.kind click --seeds 10 --out {{out}}",
        "cold-items-ml-100k",
        (*TABLE, "methods.png"),
    ),
    "everyone": Committed(
        f"{_EVALUATE} recbole-metarec --split.everyone --seeds 6 --out {{out}}",
        "everyone-ml-100k",
        (*TABLE, "methods.png"),
    ),
    "melu": Committed(f"{_EVALUATE} melu --seeds 3 --out {{out}}", "melu-ml-100k", TABLE),
    "melu-as-published": Committed(
        f"{_EVALUATE} melu --seeds 3 --metrics melu --out {{out}}", "melu-ml-100k/as-published", TABLE
    ),
    "few-shot": Committed(
        f"{_EVALUATE} few-shot --seeds 10 --out {{out}}",
        "few-shot-ml-100k",
        (*TABLE, "curve.json", "curve.png"),
    ),
    "time": Committed(f"{_EVALUATE} time --seeds 3 --out {{out}}", "time-ml-100k", TABLE),
    "tallrec": Committed(
        f"{_EVALUATE} tallrec --seeds 3 --out {{out}}",
        "tallrec-ml-100k",
        (*TABLE, "methods-the-whole-past-with-stars.png"),
    ),
    **{
        name: Committed(f"{_EVALUATE} {options} --out {{out}}", f"amortised-ml-100k/{name}", TABLE, against)
        for name, options, against in (
            ("gradient", "recbole-metarec --seeds 10", ""),
            ("amortised", f"recbole-metarec --seeds 10 {_AMORTISED}", "gradient"),
            ("amortised-5", "recbole-metarec --seeds 3 --updater.kind amortised", "gradient"),
            ("amortised-few-shot", f"few-shot --seeds 10 {_AMORTISED}", "few-shot"),
            (
                "amortised-clicks",
                f"strong-generalisation --data.kind click --seeds 3 {_AMORTISED}",
                "strong-generalisation",
            ),
        )
    },
    **{
        name: Committed(
            f"{_EVALUATE} recbole-metarec --seeds 1 --encoder.stored {name} --out {{out}}",
            f"stored-ml-100k/{name}",
            TABLE,
        )
        for name in ("float16", "float32")
    },
    "new-items": Committed("benchmarks.new_items --seeds 10 --json {out}", "new-items.json"),
    "interview": Committed("benchmarks.interview --seeds 20 --json {out}", "interview.json"),
    "movietweetings": Committed(
        f"{_EVALUATE} recbole-metarec --data.source movietweetings --data.path movietweetings/snapshots/100K --seeds 5"
        " --out {out}",
        "recbole-metarec-movietweetings",
        (*TABLE, "cohorts.json", "methods.png"),
    ),
}
"""By name, in the order in which they are made: last what needs files that are not downloaded by themselves."""


def make(name: str, runs: Path) -> None:
    """Run the command of a committed result, and copy what it wrote.

    Args:
        name: name in `COMMITTED`.
        runs: folder of the evaluations. A result with other metrics (`--metrics`) evaluates the same models.

    Raises:
        subprocess.CalledProcessError: the command failed; what it has finished stays in `runs`.
    """
    command, place, files, against = COMMITTED[name]
    out = runs / name.removesuffix("-as-published")
    target = out if files else Path("benchmarks/results") / place
    arguments = shlex.split(command.replace("{out}", shlex.quote(target.as_posix())))
    print(f"{name}: python -m {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", *arguments], check=True)
    publish(out, HERE / place, files)
    if against:
        compare = ["metarec_jax", "compare", "--json", out.as_posix(), (runs / against).as_posix()]
        found = subprocess.run([sys.executable, "-m", *compare], check=True, stdout=subprocess.PIPE)
        (HERE / place / "compare.json").write_bytes(found.stdout)


def publish(made: Path, place: Path, files: Sequence[str]) -> None:
    """Copy files of an evaluation to the folder of the committed ones.

    Args:
        made: folder of the evaluation.
        place: folder of the committed files, which is created.
        files: their names, without the folder (``tables``, or ``plots`` of a PNG).
    """
    for file in files:
        place.mkdir(parents=True, exist_ok=True)
        folder = "plots" if file.endswith(".png") else "tables"
        shutil.copyfile(made / folder / file, place / file)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line with these arguments; None takes those of the process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description="Make committed tables anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="results to make; all where none is named")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the evaluations (runs)")
    parser.add_argument("--list", action="store_true", help="print names and commands, and end")
    found = parser.parse_args(arguments)
    unknown = [name for name in found.names if name not in COMMITTED]
    if unknown:
        parser.error(f"no result is called {unknown[0]!r}; there are {', '.join(COMMITTED)}")
    for name in found.names or COMMITTED:
        if found.list:
            print(f"{name}: python -m {COMMITTED[name].command.replace('{out}', f'{found.runs}/{name}')}")
        else:
            make(name, found.runs)
    if not found.list:
        report.main(["--update"])


if __name__ == "__main__":
    main()
