"""The benchmark that options are chosen by, on a small run's data."""

import dataclasses

import numpy as np
import pytest
from trained import believing_run

from benchmarks import constants, hidden
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.protocols import divide
from metarec_jax.train import run_folder


@pytest.mark.slow
def test_what_is_the_same_differs_by_nothing_and_what_is_not_by_something():
    config = run_folder.open_run(believing_run()).config
    rows = constants.measure(config, [f"rank={config.factors.rank}", "rank=2"], 2)
    assert [row.metric for row in rows] == [*constants.METRICS] * 2
    same, other = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert all(row.ours == row.theirs and row.facts["difference"]["difference"] == 0 for row in same)
    assert any(row.ours != row.theirs for row in other)
    assert {row.case for row in other} == {"rank=2"}


@pytest.mark.slow
def test_models_are_trained_once_and_kept(tmp_path):
    config = run_folder.open_run(believing_run()).config
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=1))
    tried = ["learner.gate=2", "updater.steps=0"]
    rows = constants.measure(config, tried, 1, tmp_path)
    assert {row.case for row in rows} == set(tried)
    assert any(row.ours != row.theirs for row in rows)
    trained = {path: path.read_text() for path in tmp_path.rglob("metrics.jsonl")}  # with the speed of every epoch
    assert len(trained) == 3
    assert constants.measure(config, tried, 1, tmp_path) == rows
    assert {path: path.read_text() for path in tmp_path.rglob("metrics.jsonl")} == trained
    with pytest.raises(MetarecError, match="holds a run with other options"):
        constants.measure(
            dataclasses.replace(config, learner=dataclasses.replace(config.learner, gate=3.0)), tried, 1, tmp_path
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rnak=3", "no option 'factors.rnak'; did you mean 'rank'"),
        ("rank=many", "factors.rank is 'many' .str.; it must be of type int"),
        ("dropout=1", "dropout is 1"),
        ("trian.rate=1", "no option 'trian'; did you mean 'train'"),
        ("seed.bits=1", "seed is of type dict"),
        ("train.rate=fast", "train.rate is 'fast'"),
        ("rank", "factors.rank is ''"),
    ],
)
def test_what_is_no_option_is_refused(text, said):
    with pytest.raises(MetarecError, match=said):
        constants.changed(Config(), text)


@pytest.mark.slow
def test_hidden_items_are_in_no_row_of_training_and_all_that_is_asked_about():
    config = run_folder.open_run(believing_run()).config
    data = load(config.data, seed=config.seed)
    before = divide(data, config, 0)
    after = hidden.hide(before, data, config, 0)
    known, asked = after.validation, after.scenarios[0].tasks
    rated = data.item[np.concatenate([after.train, known.support, known.query, asked.support])]
    assert not np.isin(data.item[asked.query], rated).any()
    rows = np.concatenate([known.support, known.query, asked.query])
    whole = np.concatenate([before.validation.support, before.validation.query])
    assert set(rows.tolist()) <= set(whole.tolist()), "of test users nothing is asked"
    new = ~np.isin(data.item[whole], data.item[after.train])
    assert len(asked.query) >= new.sum() > 0
    assert len(after.train_users) > 0


@pytest.mark.slow
def test_hidden_items_are_asked_about():
    config = run_folder.open_run(believing_run()).config
    shown = constants.measure(config, ["rank=2"], 1, new_items=True)
    other = constants.measure(config, ["rank=2"], 1)
    assert [row.theirs for row in shown] != [row.theirs for row in other]
