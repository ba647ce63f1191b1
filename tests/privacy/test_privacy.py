"""What a private training promises, and what it leaves behind."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import assert_equal
from trained import small_config, small_data
from training import stopping_at

import metarec_jax
from metarec_jax.cli.main import main
from metarec_jax.config.data import DataConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.training import Training
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.data.episodes import EpisodeSource
from metarec_jax.data.histories import histories
from metarec_jax.data.splits import row_statistics
from metarec_jax.privacy import accounting
from metarec_jax.privacy.options import PrivacyConfig
from metarec_jax.privacy.sampling import PoissonSource
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import loop, run_folder
from metarec_jax.train.build import build, resolve
from metarec_jax.train.checkpoints import Checkpoints, Progress
from metarec_jax.train.start import fit, meta_train, program_of, resume, start
from metarec_jax.train.state import first_state


def private_config(**changes) -> Config:
    config = small_config()
    return dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, user_side="auto"),
        factors=FactorsConfig(rank=0),
        train=dataclasses.replace(config.train, users_per_step=40, users_per_device=16),
        privacy=PrivacyConfig(epsilon=20.0, **changes),
    )


# The accountant


def gaussian_delta(noise: float, epsilon: float) -> float:
    """Of one Gaussian mechanism of sensitivity 1 (Balle & Wang 2018, arXiv 1805.06530, theorem 8)."""

    def phi(x: float) -> float:
        return math.erfc(-x / math.sqrt(2)) / 2

    return phi(1 / (2 * noise) - epsilon * noise) - math.exp(epsilon) * phi(-1 / (2 * noise) - epsilon * noise)


def plan_for(epsilon: float, users: int, steps: int, per_step: int, delta: float = 0.0) -> accounting.Plan:
    config = dataclasses.replace(
        Config(),
        factors=FactorsConfig(rank=0),
        privacy=PrivacyConfig(epsilon, delta),
        train=dataclasses.replace(Config().train, users_per_step=per_step),
    )
    return accounting.make_plan(config, users, steps)


def test_one_step_of_everyone_is_the_gaussian_mechanism():
    plan = plan_for(1.0, users=50, steps=1, per_step=50, delta=1e-3)
    assert plan.rate == 1.0
    assert gaussian_delta(plan.noise, 1.0) <= 1e-3
    assert gaussian_delta(plan.noise * 0.99, 1.0) > 1e-3  # no more noise than it takes


def test_no_more_is_spent_than_is_allowed_and_more_steps_spend_more():
    plan = plan_for(3.0, users=200, steps=20, per_step=20)
    assert plan.delta == pytest.approx(0.1 / 200)
    whole = accounting.spent(plan, 20)
    assert 2.9 < whole <= 3.0
    assert 0 == accounting.spent(plan, 0) < accounting.spent(plan, 10) < whole
    # Sampling is worth something: with everyone in every step the same noise would spend more.
    assert accounting.spent(plan._replace(rate=1.0), 20) > 2 * whole


def test_some_noise_is_added_whatever_is_allowed():
    plan = plan_for(1e6, users=200, steps=4, per_step=20)
    assert plan.noise == accounting.LEAST_NOISE
    assert accounting.spent(plan, 4) < 1e6


def test_what_no_noise_reaches_is_refused():
    with pytest.raises(MetarecError, match="out of reach in 100 outer steps"):
        plan_for(1e-6, users=50, steps=100, per_step=50, delta=1e-12)


def test_a_delta_that_promises_nothing_is_refused():
    with pytest.raises(MetarecError, match=r"privacy\.delta is 0\.05.*less than 0\.02"):
        plan_for(1.0, users=50, steps=1, per_step=50, delta=0.05)


# Sampling


def poisson(rate: float = 0.3, seed: int = 5, epochs: int = 40) -> PoissonSource:
    data, config = small_data(), small_config().episodes
    source = EpisodeSource(
        histories=histories(data, np.arange(50)),
        config=config,
        statistics=row_statistics(data, np.zeros(0, np.int64)),
        training=True,
        users_per_batch=10,
        seed=0,
        epochs=epochs,
    )
    return PoissonSource(source, rate, (seed,))


def test_every_user_is_in_a_batch_with_the_same_probability_and_independently():
    source = poisson()
    there = np.stack([np.isin(np.arange(50), source.members(i)) for i in range(len(source))])
    steps = len(there)
    deviation = math.sqrt(0.3 * 0.7 / steps)
    assert np.abs(there.mean(axis=0) - 0.3).max() < 4 * deviation
    assert there.sum(axis=1).var() == pytest.approx(50 * 0.3 * 0.7, rel=0.3)  # fixed sizes would have none
    pairs = np.corrcoef(there.T)[np.triu_indices(50, 1)]
    assert abs(pairs.mean()) < 0.01


def test_batches_are_those_users_in_one_shape():
    source = poisson(epochs=2)
    shapes = set()
    for i in range(len(source)):
        batch = source[i]
        shapes.add(batch.support.item.shape)
        real = batch.weight > 0
        np.testing.assert_array_equal(source.users_of(batch)[real], source.members(i))
        assert not batch.support.mask[~real].any()
        halves = [source.part(i, own) for own in np.array_split(np.arange(source.size), 2)]
        assert_equal(jax.tree.map(lambda *leaves: np.concatenate(leaves), *halves), batch)
        np.testing.assert_array_equal(source.users_in(i), source.members(i))
    assert len(shapes) == 1
    assert [list(poisson(seed=6).members(i)) for i in range(4)] != [list(source.members(i)) for i in range(4)]
    with pytest.raises(IndexError):
        source[len(source)]


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "privacy": PrivacyConfig(1.0, covers="updates"),
                "encoder": EncoderConfig(train="all"),
                "train": TrainConfig(shards=2),
            },
            "train.shards is 2.*--train.shards 1",
        ),
        (
            {"privacy": PrivacyConfig(1.0, covers="updates"), "data": DataConfig(kind="click", negatives=2)},
            "negatives_popularity",
        ),
        (
            {
                "privacy": PrivacyConfig(1.0, covers="updates"),
                "learner": LearnerConfig(user_side="description"),
            },
            "user_side is 'description'.*--learner.user-side profile, or none",
        ),
        ({"privacy": PrivacyConfig(1.0), "factors": FactorsConfig(rank=8)}, "factors.rank is 8.*--factors.rank 0"),
        ({"privacy": PrivacyConfig(1.0), "factors": FactorsConfig(train=True)}, "factors.rank.*--factors.rank 0"),
        (
            {"privacy": PrivacyConfig(1.0, covers="updates"), "factors": FactorsConfig(train=True)},
            "factors.train is True.*which rows change.*--factors.no-train",
        ),
        (
            {
                "privacy": PrivacyConfig(1.0),
                "factors": FactorsConfig(rank=0),
                "learner": LearnerConfig(user_side="profile"),
            },
            "user_side.*none",
        ),
    ],
)
def test_what_no_noise_is_added_to_is_refused(changes, message):
    with pytest.raises(MetarecError, match=message):
        Config(**changes)


def test_what_need_not_be_covered_is_allowed():
    Config(privacy=PrivacyConfig(1.0, covers="updates"), factors=FactorsConfig(rank=8))
    Config(factors=FactorsConfig(rank=8))
    Config(privacy=PrivacyConfig(1.0), factors=FactorsConfig(rank=0), encoder=EncoderConfig(train="all"))


def test_the_options_state_what_such_a_training_rules_out():
    run, updates = (PrivacyConfig(1.0, covers=covers).training for covers in ("run", "updates"))
    assert PrivacyConfig().training == Training()
    assert (run.only_steps, updates.only_steps) == (True, False)
    assert run.package == updates.package == "metarec_jax.privacy"


def test_rooms_below_read_these_traits_and_name_no_privacy():
    package = Path(metarec_jax.__file__).parent
    for room in ("train", "meta", "factors", "learner", "data", "metrics"):
        for path in (package / room).rglob("*.py"):
            assert "privacy" not in path.read_text(), path


@pytest.mark.parametrize("changes", [{"epsilon": -1.0}, {"epsilon": math.inf}, {"delta": 1.0}, {"clip": 0.0}])
def test_impossible_numbers_are_refused(changes):
    with pytest.raises(MetarecError, match=f"privacy.{next(iter(changes))}"):
        PrivacyConfig(**changes)


# A run


def test_what_training_starts_from_does_not_depend_on_the_ratings_of_training_users():
    data, config = small_data(), private_config()
    found = []
    for rating in (data.rating, np.where(data.rating > 3, 1.0, 5.0).astype(np.float32)):
        experiment = build(config, data=dataclasses.replace(data, rating=rating))
        state = first_state(experiment, 8)
        found.append((experiment.catalogue.statistics, state.trainable))
        assert not experiment.catalogue.statistics.count.any()
        assert not experiment.train.source[0].support.statistic.any()
    assert_equal(*found)


def test_users_are_described_by_nothing_where_all_is_private():
    data = dataclasses.replace(small_data(), users=dataclasses.replace(small_data().users, texts=("x",) * 200))
    assert resolve(private_config(), data).learner.user_side == "none"
    assert resolve(private_config(covers="updates"), data).learner.user_side == "profile"


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private") / "run"
    meta_train(private_config(), folder)
    return folder


def test_a_run_says_what_it_has_spent(private_run):
    run = run_folder.open_run(private_run)
    document = accounting.read(run)
    assert document["steps_taken"] == document["steps"] == 8
    assert document["users"] == 160
    assert 19 < document["epsilon_spent"] <= 20
    spent = [line["epsilon"] for line in run.read_metrics()]
    assert spent[0] < spent[1] == document["epsilon_spent"]
    assert "epsilon" in accounting.statement(document)


def test_the_card_states_what_was_spent_and_what_is_covered(private_run):
    spent, card = accounting.read(run_folder.open_run(private_run)), (private_run / "card.md").read_text()
    assert f"- epsilon: {spent['epsilon_spent']:.4g} spent of 20" in card
    assert f"- delta: {spent['delta']:.4g}" in card
    assert "- covers: everything that a recommender reads of the run" in card
    stored = json.loads((private_run / "about.json").read_text())
    assert set(stored["data"]) & {"rows", "users"} == set()
    assert "description" not in stored["split"]
    assert stored["split"]["users"]["train"] == spent["users"]


def test_nothing_that_gives_the_noise_away_is_left(private_run):
    run = run_folder.open_run(private_run)
    assert not accounting.secret_file(run).exists()
    assert not catalogues.load(run).statistics.count.any()


def test_the_last_epoch_is_taken_whatever_the_validation_users_say(private_run):
    with Checkpoints(private_run / "checkpoints", tidy=False) as checkpoints:
        progress = checkpoints.latest()
    assert progress.best_step == progress.step == 8


def test_a_private_run_recommends(private_run):
    recommender = Recommender.load(private_run)
    assert len(recommender.recommend(recommender.adapt({1: 5, 2: 1}), k=3)) == 3


def test_a_training_whose_secret_is_gone_does_not_go_on(private_run, tmp_path):
    """A finished training has removed it; here its checkpoint is that of one that has not ended."""
    folder = tmp_path / "run"
    shutil.copytree(private_run, folder)
    run, experiment = resume(folder)
    shutil.rmtree(run.checkpoints)
    with Checkpoints(run.checkpoints) as checkpoints:
        checkpoints.save(first_state(experiment, 8), dataclasses.replace(Progress.at_start(), step=4, epoch=1))
    with pytest.raises(MetarecError, match=r"secret\.json is gone"):
        fit(run, experiment)


def test_the_command_prints_the_promise(private_run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(private_run, folder)
    assert main(["train", "--resume", str(folder), "--json"]) == 0  # there is nothing left to do
    found = json.loads(capsys.readouterr().out)
    assert found["privacy"] == accounting.read(run_folder.open_run(private_run))
    assert not (folder / "secret.json").exists()


@pytest.mark.slow
def test_a_run_trains_its_encoder_privately_is_stopped_and_goes_on(tmp_path):
    """With LoRA: what has been spent is told on the way and at the end, and nothing moves that is not trained."""
    config = private_config(delta=0.1 / 160)  # with the steps and the rate of the run above: its noise is found already
    config = dataclasses.replace(
        config,
        encoder=dataclasses.replace(config.encoder, train="lora", lora_rank=2, rate=1e-3, max_length=12),
        episodes=dataclasses.replace(config.episodes, max_ratings=30, buckets=(8,), validation=0.1, test=0.8),
        updater=dataclasses.replace(config.updater, steps=1),
        train=dataclasses.replace(config.train, users_per_step=5),
    )
    folder = tmp_path / "run"
    run, experiment = start(config, folder)
    program = program_of(run, experiment)
    half = loop.train(run, program, reporter=stopping_at(3))
    taken = half.progress.step
    assert half.interrupted
    assert accounting.secret_file(run).exists()
    spent = accounting.read(run)["epsilon_spent"]
    assert accounting.read(run)["steps_taken"] == taken < accounting.read(run)["steps"]
    run, experiment = resume(folder)
    # The step is that of the first training, so that it is compiled once.
    whole = loop.train(run, dataclasses.replace(program_of(run, experiment), step=program.step))
    document = accounting.read(run)
    assert document["steps_taken"] == document["steps"] == whole.progress.step == 8
    assert document["epsilon_spent"] > spent > 0
    assert not accounting.secret_file(run).exists()
    before, after = first_state(experiment, 8).trainable, whole.trainable
    for name, old, new in zip(path_names(before), jax.tree.leaves(before), jax.tree.leaves(after)):
        still = name.startswith("theta/input/") or (name.startswith("encoder/") and "lora_" not in name)
        assert new.size == 0 or np.array_equal(old, new) == still, name
    recommender = Recommender.load(folder)
    assert np.isfinite(recommender.score_text(recommender.adapt({}), "a film"))
