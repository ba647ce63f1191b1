"""A trained run with a catalogue of any size: made-up items are drawn around the run's own."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.data.splits import Statistics
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder

SPREAD = 0.3
"""Standard deviation of a made-up vector around that of an item, in units of the items' own spread in each column."""
_SYLLABLES = [f"{a}{b}" for a in ("b", "d", "f", "gr", "k", "l", "m", "n", "pr", "s", "st", "v") for b in "aeiou"]


def titles_of(count: int, seed: int = 0) -> list[str]:
    """Draw titles of one to five words, with frequencies of words as in a language (Zipf's law), and a year.

    Args:
        count: number of titles.
        seed: seed of the draw.

    Returns:
        The titles; some are equal.
    """
    rng = np.random.default_rng(seed)
    words = ["".join(_SYLLABLES[s] for s in rng.integers(len(_SYLLABLES), size=n)) for n in rng.integers(1, 5, 50_000)]
    lengths = rng.integers(1, 6, count)
    chosen = (rng.zipf(1.3, lengths.sum()) - 1) % len(words)
    years, ends = rng.integers(1920, 2025, count).tolist(), np.cumsum(lengths).tolist()
    return [
        f"{' '.join(words[w].capitalize() for w in chosen[end - n : end])} ({year})"
        for n, end, year in zip(lengths.tolist(), ends, years)
    ]


def enlarge(run: Path, out: Path, count: int, seed: int = 0) -> Path:
    """Copy a run, with a made-up catalogue in place of its own.

    Args:
        run: folder of a trained run.
        out: folder of the copy, which must not exist.
        count: number of items; their ids are "0", "1", ...
        seed: seed of the draw.

    Returns:
        `out`.

    Raises:
        MetarecError: the run trains a correction of the factors of its own items.
    """
    if run_folder.open_run(run).config.trains_factors:
        raise MetarecError(
            f"{run} trains a correction of the factors of its own items, which made-up ones have not: name a run that "
            "was trained with --factors.no-train"
        )
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("checkpoints", "*.lock"))
    copy = run_folder.open_run(out)
    known = catalogues.load(copy)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(known.items), size=count)

    def around(table: np.ndarray) -> np.ndarray:
        drawn = rng.standard_normal((count, table.shape[1]), np.float32)
        return table[rows] + SPREAD * table.std(axis=0, dtype=np.float32) * drawn

    titles = tuple(titles_of(count, seed))
    items = Items(tuple(map(str, range(count))), titles, titles)
    statistics = Statistics(known.statistics.total[rows], known.statistics.count[rows])
    beliefs = known.beliefs
    if beliefs is not None:
        factors = around(beliefs.table)
        factors[:, 1] = beliefs.table[rows, 1]  # a variance
        beliefs = dataclasses.replace(beliefs, table=factors)
    catalogues.save(
        dataclasses.replace(
            known, items=items, statistics=statistics, embeddings=around(known.embeddings), beliefs=beliefs
        ),
        copy,
    )
    return out
