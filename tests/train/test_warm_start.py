"""Training that begins with what an earlier run learned."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from helpers import assert_says
from trained import believing_config, believing_run, small_config, small_data, trained_run
from training import write_table

from metarec_jax import encoder
from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.evaluation.evaluate import evaluate
from metarec_jax.privacy.options import PrivacyConfig
from metarec_jax.train import run_folder, start, warm_start
from metarec_jax.train.parameters import load_trainable
from metarec_jax.train.start import fit
from metarec_jax.train.state import first_state


def beginning(config, earlier, **train):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, begin=str(earlier), epochs=1, **train))


def by_name(trainable):
    return dict(zip(path_names(trainable), map(np.asarray, jax.tree.leaves(trainable))))


def test_a_warm_run_begins_where_the_earlier_one_was_best(tmp_path):
    """All but what is about single factors, which other ratings turn another way."""
    config = beginning(believing_config(), believing_run())
    run, experiment = start.start(config, tmp_path / "run")
    fresh = first_state(experiment, 1).trainable
    found, anew = by_name(warm_start.begun(fresh, run)), by_name(fresh)
    earlier = by_name(load_trainable(run_folder.open_run(believing_run()), experiment.catalogue))
    assert any(name.startswith(warm_start.ANEW) for name in found)
    for name, array in found.items():
        np.testing.assert_array_equal(array, (anew if name.startswith(warm_start.ANEW) else earlier)[name])


def test_it_is_better_from_the_start_and_goes_on_without_the_earlier_run(tmp_path):
    earlier = tmp_path / "earlier"
    shutil.copytree(trained_run(), earlier)
    last = list(run_folder.open_run(earlier).read_metrics())[-1]["validation_loss"]
    run, experiment = start.start(beginning(small_config(), earlier, rate=1e-6), tmp_path / "run")
    shutil.rmtree(earlier)
    run, experiment = start.resume(run.folder)
    fit(run, experiment)
    (line,) = run.read_metrics()
    assert line["validation_loss"] == pytest.approx(last, rel=1e-3)
    run.beginning.unlink()
    with pytest.raises(MetarecError, match=r"beginning\.safetensors does not exist: delete .*start the training again"):
        fit(run, experiment)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: dataclasses.replace(c, learner=dataclasses.replace(c.learner, hidden=4)), r"theta/.* is \[.*there"),
        (lambda c: dataclasses.replace(c, updater=dataclasses.replace(c.updater, steps=1)), "phi/"),
        (
            lambda c: dataclasses.replace(
                c,
                privacy=PrivacyConfig(epsilon=8.0, covers="updates"),
                learner=dataclasses.replace(c.learner, user_side="none"),
            ),
            "parameters of an earlier run are not private",
        ),
    ],
)
def test_what_does_not_fit_leaves_nothing(change, said, tmp_path):
    config = change(beginning(small_config(), trained_run()))
    with pytest.raises(MetarecError, match=said):
        start.start(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_rating_scale_is_refused(tmp_path):
    data = small_data()
    kept = data.rating < 5
    columns = {name: getattr(data, name)[kept] for name in ("user", "item", "rating", "time")}
    write_table(dataclasses.replace(data, **columns), tmp_path / "r.csv")
    small = small_config()
    learner = dataclasses.replace(small.learner, user_side="none")
    config = dataclasses.replace(small, data=DataConfig(source="table", path=str(tmp_path / "r.csv")), learner=learner)
    with pytest.raises(MetarecError) as error:
        start.start(beginning(config, trained_run()), tmp_path / "run")
    assert_says(str(error.value), str(trained_run()), "1 to 5", "1 to 4", "--merge")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_encoder_is_refused(tmp_path):
    encoder.save(encoder.random_encoder(1), tmp_path / "encoder")
    small = small_config()
    config = dataclasses.replace(small, encoder=dataclasses.replace(small.encoder, path=str(tmp_path / "encoder")))
    with pytest.raises(MetarecError) as error:
        start.start(beginning(config, trained_run()), tmp_path / "run")
    assert_says(str(error.value), str(trained_run()), "another encoder", "--encoder.path random")
    assert not (tmp_path / "run").exists()


def test_no_run_is_no_beginning(tmp_path):
    with pytest.raises(MetarecError, match="is not a run folder"):
        start.start(beginning(small_config(), tmp_path / "none"), tmp_path / "run")


def test_a_warm_run_is_not_judged(tmp_path):
    with pytest.raises(MetarecError, match="may have been trained on this run's test users"):
        evaluate(beginning(small_config(), trained_run()), seeds=[0], folder=tmp_path)
    assert not any(tmp_path.iterdir())
