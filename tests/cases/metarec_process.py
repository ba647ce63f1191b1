"""The command in processes of its own, on a small table of ratings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from forked import Command
from quick import quick_flags

SMALL = (
    "--encoder.path", "random", "--factors.rank", "2", "--learner.hidden", "8", "--learner.user-side", "none",
    "--updater.steps", "1", "--updater.order", "first", "--train.epochs", "1",
)  # fmt: skip


def write_data(folder: Path) -> tuple[str, ...]:
    """Write ratings.csv and items.csv of 40 users and 30 items; returns the options that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = [f"u{u},{i},{rng.integers(1, 6)},{t}" for u in range(40) for t, i in enumerate(rng.permutation(30)[:16])]
    (folder / "ratings.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]) + "\n")
    titles = [f"{i},Lamp {'abcdefghij'[i % 10]} number {i}" for i in range(30)]
    (folder / "items.csv").write_text("\n".join(["item_id,title", *titles]) + "\n")
    return "--data.path", str(folder / "ratings.csv"), "--data.items-path", str(folder / "items.csv")


def begin(*arguments: str | Path, cwd: Path) -> Command:
    """Start `metarec` with these arguments."""
    return Command(list(map(str, arguments)), cwd, {**os.environ, "XLA_FLAGS": quick_flags()})


def metarec(*arguments: str | Path, cwd: Path) -> tuple[int, str, str]:
    """Run `metarec`: status, stdout, stderr; no traceback is ever right."""
    process = begin(*arguments, cwd=cwd)
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out, err
