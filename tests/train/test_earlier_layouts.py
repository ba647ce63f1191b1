"""Runs that earlier versions wrote are read: a small one of layouts 1 and 2 is kept in tests/golden/runs.

Made with `metarec train --preset synthetic --train.epochs 2 --learner.hidden 8` at commits 376c7ae and 08fe431,
without plots, and without inputs.json, since the random encoder has another digest on another processor.
"""

import shutil
from pathlib import Path

import pytest

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.legacy import LAYOUT, located
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation.budget import Budget
from metarec_jax.evaluation.evaluate import evaluate
from metarec_jax.evaluation.methods import META
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import run_folder
from metarec_jax.train.start import fit, resume

BUDGET = Budget(((1, 0.1),), item_shrinks=(5.0,), user_shrinks=(5.0,), penalties=(3.0,), samples=10, plots=False)
RUNS = Path(__file__).parents[1] / "golden" / "runs"


@pytest.fixture(params=[pytest.param(1, marks=pytest.mark.slow), 2])
def earlier(request, tmp_path):
    """A copy of the run of each layout."""
    return Path(shutil.copytree(RUNS / f"layout-{request.param}", tmp_path / "run"))


def test_an_earlier_run_is_resumed_and_recommends(earlier):
    """It has ended, so that nothing is trained; one of layout 1 has its best parameters in a checkpoint alone."""
    if not (earlier / "parameters.safetensors").exists():
        with pytest.raises(MetarecError, match=r"in a checkpoint.*metarec train --resume "):
            Recommender.load(earlier)
    fitted = fit(*resume(earlier))
    assert (fitted.progress.finished, fitted.progress.step, fitted.progress.epoch) == (True, 10, 2)
    recommender = Recommender.load(earlier)
    low, high = recommender.catalogue.scale.low, recommender.catalogue.scale.high
    found = recommender.recommend(recommender.adapt([("id:1", 5.0)]), 3)
    assert len({item.id for item in found}) == 3
    assert all(low <= item.score <= high for item in found)
    run = run_folder.open_run(earlier)
    tables = evaluate(run.config, seeds=[run.config.seed], folder=earlier, run=run, budget=BUDGET)
    assert META in next(iter(tables.values())).methods


def test_a_relative_encoder_of_an_earlier_run_is_a_folder_and_no_name_at_a_hub(tmp_path, monkeypatch):
    config = Config(encoder=EncoderConfig(path="encoder"))
    monkeypatch.chdir(tmp_path)
    assert located(config, 3).encoder.path == "./encoder"
    assert located(config, LAYOUT) == config
    run = run_folder.Run(tmp_path, located(config, 3))
    with pytest.raises(MetarecError, match=r"'\./encoder', a path relative to the folder .*--encoder\.path NEW"):
        run_folder.check_paths(run, "evaluate")
    (tmp_path / "encoder").mkdir()
    assert located(config, 3) == config
