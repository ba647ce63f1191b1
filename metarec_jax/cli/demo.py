"""`metarec demo`: train, evaluate and recommend on MovieLens-100K, in one command."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metarec_jax.cli.arguments import DEFAULT_CONFIG, RunFolder, free_folder, parse, prepare
from metarec_jax.cli.evaluate import All
from metarec_jax.cli.train import draw, interrupted
from metarec_jax.config.run import Config
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.console import make_reporter, print_grid
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.evaluation.budget import FULL, Budget

NEW_USER = (
    ("Star Wars (1977)", 5.0),
    ("Alien (1979)", 5.0),
    ("Blade Runner (1982)", 5.0),
    ("The Terminator (1984)", 4.0),
    ("Sleepless in Seattle (1993)", 1.0),
    ("The English Patient (1996)", 2.0),
)
"""Ratings of a user who likes science fiction and is not in the data."""


@dataclasses.dataclass(frozen=True)
class DemoArguments:
    """Load MovieLens-100K, encode its texts with all-MiniLM-L6-v2, meta-train, evaluate, and recommend."""

    out: RunFolder = "runs/demo"
    """Run folder. Where it exists, the first of OUT-2, OUT-3, ... that does not exist is used."""
    seed: int = 0
    """Seed of the split, of training and of the evaluation."""
    all: All = False


class Demo(NamedTuple):
    """A demo that a command line asks for: config and folder of the run, and whether all methods are printed."""

    config: Config
    folder: Path
    everything: bool


def run(arguments: Sequence[str]) -> int:
    """Run `metarec demo` and return the exit status."""
    wanted = requested(arguments)
    return run_demo(wanted.config, wanted.folder, everything=wanted.everything, reporter=prepare(wanted.config))


def requested(arguments: Sequence[str]) -> Demo:
    """Read the arguments of `metarec demo`, and choose a folder that does not exist."""
    chosen = parse(DemoArguments, "demo", arguments)
    folder = Path(chosen.out)
    if folder.exists():
        folder = free_folder(folder.name, folder.parent, first=2)
        note = f"{chosen.out} exists already and is kept: this run is written to {folder}"
        make_reporter().note(note)
    return Demo(dataclasses.replace(DEFAULT_CONFIG, seed=chosen.seed), folder, chosen.all)


def run_demo(
    config: Config,
    folder: Path,
    *,
    new_user: Sequence[tuple[str, float]] = NEW_USER,
    everything: bool = False,
    budget: Budget = FULL,
    reporter: Reporter = QUIET,
) -> int:
    """Load, encode, meta-train, evaluate and recommend, and print the results.

    Args:
        config: config of the run.
        folder: new run folder.
        new_user: titles (or "id:" and an item's id) and ratings of the user who gets recommendations.
        everything: print every method and metric of the evaluation.
        budget: as for `metarec_jax.evaluation.evaluate.evaluate`.
        reporter: where progress is shown.

    Returns:
        The exit status; after a signal during training, nothing is evaluated.
    """
    from metarec_jax.evaluation import evaluate, report
    from metarec_jax.recommender.recommender import Recommender
    from metarec_jax.train import start

    started = time.perf_counter()
    run, experiment = start.start(config, folder, reporter=reporter)
    fitted = start.fit(run, experiment, reporter=reporter)
    if fitted.signal:
        return interrupted(fitted, run)
    draw(run)

    tables = evaluate.evaluate(config, seeds=[config.seed], folder=folder, run=run, budget=budget, reporter=reporter)
    print()
    report.print_tables(tables, everything=everything)
    print()
    recommender = Recommender.load(folder)
    titles = recommender.catalogue.items.titles
    before = recommender.recommend(recommender.adapt(), 10)
    after = recommender.recommend(recommender.adapt(new_user), 10)
    rated = [[titles[recommender.find(item).row], f"{rating:g}"] for item, rating in new_user]
    print_grid("A new user rated", ["item", "rating"], rated, numbers=[1])
    rows = [
        [str(n), *(cell for item in pair for cell in (item.title, f"{item.score:.2f}"))]
        for n, pair in enumerate(zip(before, after), start=1)
    ]
    header = ["", "before: no ratings known", "score", f"after: adapted to {len(new_user)} ratings", "score"]
    print_grid("Recommended", header, rows, numbers=[0, 2, 4])
    if experiment.data.citation:
        print(f"Data: {experiment.data.citation}\n")
    print(f"Plots: {', '.join(str(path) for path in sorted(run.plots.glob('*.png')))}")
    print(f"Run folder: {path_argument(folder)} ({time.perf_counter() - started:.0f} s in all)\n")
    name = path_argument(folder)
    print("Try next:")
    print(f'  metarec recommend {name} --rate "Toy Story=5" --rate "Heat=2" -k 10')
    print(f'  metarec recommend {name} --rate "Alien=5" --item-text "Space pirates find a lost planet. Sci-Fi."')
    print(f"  metarec evaluate {name} --seeds 3")
    return 0
