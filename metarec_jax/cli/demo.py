"""`metarec demo`: the whole method once, from ratings to recommendations, with something to look at at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from metarec_jax.config.run import Config
from metarec_jax.core.console import print_grid, result_console
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.evaluation import plots
from metarec_jax.evaluation.evaluate import evaluate as run_evaluation
from metarec_jax.evaluation.report import print_table
from metarec_jax.recommender.recommender import Rated, Recommender
from metarec_jax.train.loop import Fitted
from metarec_jax.train.start import fit, start

NEWCOMER = (
    Rated("Star Wars (1977)", 5),
    Rated("Alien (1979)", 5),
    Rated("Blade Runner (1982)", 5),
    Rated("The Terminator (1984)", 4),
    Rated("Sleepless in Seattle (1993)", 1),
    Rated("The English Patient (1996)", 2),
)
"""Someone who did not exist a minute ago, and likes science fiction."""


def run_demo(
    config: Config,
    folder: Path,
    *,
    newcomer: Sequence[Rated] | None = None,
    k: int = 10,
    reporter: Reporter = QUIET,
) -> Fitted:
    """Loads, encodes, meta-trains, evaluates and recommends, and prints what came of it.

    Args:
        config: of the run.
        folder: a new run folder.
        newcomer: whom to recommend to; `NEWCOMER` where None.
        k: how many items.
        reporter: where progress is shown.

    Returns:
        How training went; where it was interrupted, nothing was evaluated.
    """
    started = time.perf_counter()
    newcomer = NEWCOMER if newcomer is None else newcomer
    run, experiment = start(config, folder, reporter=reporter)
    fitted = fit(run, experiment, reporter=reporter)
    if fitted.interrupted:
        return fitted
    lines = list(run.read_metrics())
    losses = [[line[key] for line in lines] for key in ("epoch", "train_loss", "validation_loss")]
    plots.save(plots.training_figure(*losses), run.plots / "training.png")

    tables = run_evaluation(config, seeds=[config.seed], folder=folder, run=run, reporter=reporter)
    print()
    print_table(next(iter(tables.values())), result_console())
    print()
    recommender = Recommender.load(folder)
    titles = recommender.catalogue.items.titles
    before = recommender.recommend(recommender.prior(), k)
    after = recommender.recommend(recommender.adapt(newcomer), k)
    rated = [[titles[recommender.find(item).row], f"{rating:g}"] for item, rating in newcomer]
    print_grid("A new user rated", ["item", "rating"], rated, numbers=[1])
    rows = [
        [str(n), *(cell for item in pair for cell in (item.title, f"{item.score:.2f}"))]
        for n, pair in enumerate(zip(before, after), start=1)
    ]
    header = ["", "before: knowing nothing", "score", f"after: adapted to {len(newcomer)} ratings", "score"]
    print_grid("Recommended", header, rows, numbers=[0, 2, 4])
    if experiment.data.citation:
        print(f"Data: {experiment.data.citation}\n")
    print(f"Plots: {', '.join(str(path) for path in sorted(run.plots.glob('*.png')))}")
    print(f"Run folder: {folder} ({time.perf_counter() - started:.0f} s in all)\n")
    print("Try next:")
    print(f'  metarec recommend {folder} --rate "Toy Story=5" --rate "Heat=2" -k 10')
    print(f'  metarec recommend {folder} --rate "Alien=5" --item-text "Space pirates find a lost planet. Sci-Fi."')
    print(f"  metarec evaluate {folder} --seeds 3")
    return fitted
