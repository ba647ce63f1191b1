"""Plots say what the numbers say, and leave matplotlib's global state alone."""

import subprocess
import sys

import numpy as np
import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation import plots, write_results
from metarec_jax.evaluation.cohorts import KINDS
from metarec_jax.evaluation.table import SeedResult, build_table
from metarec_jax.metrics.metrics import UserValues


def small_table(seeds=2):
    found = {}
    for shift, name in enumerate(("item mean", "meta-learned")):
        values = {
            m: UserValues(np.full(5, 0.9 - 0.1 * shift), np.ones(5)) for m in ("accuracy", "mae", "ndcg@3", "ndcg@5")
        }
        found[name] = [SeedResult(s, np.arange(5), values) for s in range(seeds)]
    return build_table(
        found, title="A world", protocol="p", references=("item mean",), subject="meta-learned", samples=20
    )


def texts(figure):
    figure.draw_without_rendering()
    return [t.get_text() for axes in figure.axes for t in (*axes.texts, *axes.get_yticklabels(), axes.title)]


@pytest.mark.parametrize("seeds", [1, 2])
def test_methods_figure_shows_each_method_with_its_mean(seeds):
    figure = plots.methods_figure(small_table(seeds))
    assert [axes.get_title() for axes in figure.axes] == ["MAE  (lower is better)", "nDCG@3  (higher is better)"]
    shown = texts(figure)
    for wanted in ("item mean", "meta-learned", ".900", ".800"):
        assert wanted in shown
    only = plots.methods_figure(small_table(seeds), metrics=("accuracy",))
    assert [axes.get_title() for axes in only.axes] == ["accuracy  (higher is better)"]


def test_training_figure_marks_the_best_epoch_and_bears_gaps():
    figure = plots.training_figure([1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0], [4.0, np.nan, 2.5, 3.0])
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert labels == ["training users", "validation users", "best: 2.500 in epoch 3"]
    none = plots.training_figure([1], [2.0], [np.nan])
    assert len(none.axes[0].get_legend().get_texts()) == 2


def test_improvement_figure_counts_every_user_once_on_the_right_side():
    baseline, model = np.array([1.0, 1.0, 1.0, 1.0, 0.5]), np.array([0.5, 0.9, 1.0, 1.2, 0.25])
    figure = plots.improvement_figure(baseline, model, names=("item mean", "meta-learned"))
    axes = figure.axes[0]
    bars = [(b.get_x() + b.get_width() / 2, b.get_height()) for b in axes.patches]
    assert sum(h for x, h in bars if x > 0) == 4  # three gains, and the user without a difference
    assert sum(h for x, h in bars if x < 0) == 1
    assert "better for 60%" in texts(figure)
    assert "worse for 20%" in texts(figure)
    assert "mean +.130" in texts(figure)
    plots.improvement_figure(np.ones(3), np.ones(3), names=("a", "b"))
    with pytest.raises(ValueError, match="at least one user"):
        plots.improvement_figure(np.ones(0), np.ones(0), names=("a", "b"))


@pytest.mark.parametrize(
    "left_out", [(write_results.RATE,), (write_results.BIAS, write_results.ITEM, write_results.RIDGE)]
)
def test_no_method_of_a_curve_or_of_cohorts_is_left_without_a_colour(left_out):
    shown = [method for method in write_results.CURVES if method not in left_out]
    assert {write_results.META, write_results.BEFORE, write_results.CLOSED} <= set(shown)
    cell = {"mean": 1.0, "low": 0.9, "high": 1.1, "difference": 1.0}
    mae = {"name": "mae", "title": "MAE", "better": "lower"}
    curve = {"k": [0, 1], "metrics": [mae], "methods": {method: {"mae": [cell, cell]} for method in shown}}
    (axes,) = plots.curve_figure(curve).axes
    assert [line.get_label() for line in axes.lines] == shown
    assert len({line.get_color() for line in axes.lines}) == len(shown)
    cohort = {"cohort": "1–2", "users": 9, "values": {"mae": dict.fromkeys(shown, cell)}}
    found = {"cohorts": {kind.name: [cohort] for kind in KINDS}}
    for axes in plots.cohort_figure(found, shown, title="t").axes:
        assert len(axes.patches) == len(shown)


def test_a_plot_is_written_whole_or_not_at_all(tmp_path):
    figure = plots.training_figure([1, 2], [2.0, 1.0], [2.0, 1.0])
    path = plots.save(figure, tmp_path / "plots" / "training.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in path.parent.iterdir()] == ["training.png"]
    with pytest.raises(MetarecError, match=r"training\.png: cannot be written"):
        plots.save(figure, path / "x.png")


def test_nothing_global_is_touched_and_the_package_does_not_need_matplotlib_to_be_imported():
    code = (
        "import sys, metarec_jax.evaluation, metarec_jax.evaluation.report\n"
        "assert not {'matplotlib', 'rich', 'pandas'} & set(sys.modules)\n"
        "import metarec_jax.evaluation.plots as plots\n"
        "plots.training_figure([1, 2], [2.0, 1.0], [2.0, 1.0])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
