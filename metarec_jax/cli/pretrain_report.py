"""What is shown of a pretraining: what was held out before and after, and the curve between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarec_jax.train.pretraining.start import Pretrained
from metarec_jax.train.run_folder import Run

TITLES = {
    "perplexity_users": "perplexity of hidden words, held-out users",
    "perplexity_items": "perplexity of hidden words, held-out items",
    "contrastive_users": "contrastive loss, held-out users",
    "contrastive_items": "contrastive loss, held-out users' likes of held-out items",
}
"""What each judgement is called; less is better in all of them."""


def show(pretrained: Pretrained) -> None:
    """Prints on stdout what was judged before and after."""
    from metarec_jax.core.console import print_grid

    rows = [
        [TITLES[name], f"{before:,.4g}", f"{pretrained.after[name]:,.4g}"] for name, before in pretrained.before.items()
    ]
    print_grid(f"Pretrained for {pretrained.step} steps", ["less is better", "before", "after"], rows, numbers=[1, 2])


def to_json(run: Run, pretrained: Pretrained, encoder: Path, plot: Path) -> dict[str, Any]:
    """The same as a JSON object."""
    return {
        "run": str(run.folder),
        "encoder": str(encoder),
        "plot": str(plot),
        "step": pretrained.step,
        "before": pretrained.before,
        "after": pretrained.after,
    }


def draw(run: Run) -> Path:
    """Draws the curves of a run into its folder."""
    from metarec_jax.evaluation import plots

    lines = list(run.read_metrics())
    curves = {
        title: ([line["step"] for line in lines if name in line], [line[name] for line in lines if name in line])
        for name, title in TITLES.items()
    }
    figure = plots.pretraining_figure({title: curve for title, curve in curves.items() if curve[0]})
    return plots.save(figure, run.plots / "pretraining.png")
