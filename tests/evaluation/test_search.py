"""Searches for options: on validation users alone, gone on with after a stop, and refused where they make no sense."""

import dataclasses
import json

import numpy as np
import pytest
from trained import small_config

from metarec_jax.cli import main
from metarec_jax.config.run import from_json
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.protocols import divide
from metarec_jax.evaluation import search, search_space
from metarec_jax.train.build import build

SPACE = {"train.rate": {"low": 1e-4, "high": 1e-1, "log": True}, "updater.steps": [0, 1]}


@pytest.fixture(scope="module")
def config():
    small = small_config()
    return dataclasses.replace(
        small,
        learner=dataclasses.replace(small.learner, hidden=4, user_side="none"),
        updater=dataclasses.replace(small.updater, steps=1),
        train=dataclasses.replace(small.train, epochs=1),
    )


@pytest.fixture(scope="module")
def searched(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning") / "search"
    return folder, search.tune(config, folder, trials=3, space=SPACE)


def test_the_best_of_the_trials_is_the_config_that_is_written(searched, config):
    folder, found = searched
    assert [value for _, value, _ in found.trials] == sorted(value for _, value, _ in found.trials)
    assert found.value == found.trials[0][1]
    assert found.config == search_space.with_options(config, found.trials[0][2])
    assert from_json((folder / "best.json").read_text(), where="best") == found.config
    assert not list(folder.glob("trial-*"))


def test_what_there_was_is_the_first_trial(searched, config):
    _, found = searched
    first = next(options for number, _, options in found.trials if number == 0)
    assert first == {"train.rate": config.train.rate, "updater.steps": config.updater.steps}


def test_with_several_seeds_a_trial_is_worth_the_mean_of_its_runs(searched, config, tmp_path):
    space = {"updater.steps": [1]}
    (value, following, both) = (
        search.tune(
            dataclasses.replace(config, seed=seed), tmp_path / f"{seed}-{seeds}", trials=1, space=space, seeds=seeds
        ).value
        for seed, seeds in ((0, 1), (1, 1), (0, 2))
    )
    assert value != following
    assert both == (value + following) / 2


def test_it_goes_on_where_it_was(searched, config):
    folder, found = searched
    again = search.tune(config, folder, trials=3, space=SPACE)
    assert again == found
    more = search.tune(config, folder, trials=4, space=SPACE)
    assert len(more.trials) == 4
    assert [t for t in more.trials if t in found.trials] == found.trials
    rates = [options["train.rate"] for _, _, options in more.trials]
    assert len(set(rates)) == 4


def test_what_there_was_is_scored_however_often_the_search_is_killed_at_first(config, tmp_path):
    class Killed(BaseException):
        pass

    def killed(found, place):
        raise Killed

    scored = []

    def score(found, place):
        scored.append(found)
        return float(len(scored))

    def searched(objective, trials):
        study = search.open_study(config, tmp_path, SPACE)
        return search.run_trials(study, config, tmp_path, objective, trials=trials, space=SPACE)

    for _ in range(2):
        with pytest.raises(Killed):
            searched(killed, 2)
    found = searched(score, 2)
    assert scored[0] == config
    assert found.config == config, "the first was worth 1, the second 2"
    assert [number for number, _, _ in found.trials] == [2, 3]
    searched(score, 3)
    assert scored.count(config) == 1


def test_another_search_in_its_folder_is_refused(searched, config):
    folder, _ = searched
    for other in ({"metric": "mae"}, {"space": {"updater.steps": [1]}}, {"seeds": 2}):
        with pytest.raises(MetarecError, match="is of a search with other options"):
            search.tune(config, folder, **{"trials": 1, "space": SPACE} | other)


@pytest.mark.slow
def test_test_users_have_no_say(config, tmp_path):
    """All that a test user rated is turned round, and no trial is worth anything else."""
    data = load(config.data, seed=config.seed)
    scenarios = divide(data, config, config.seed).scenarios
    held = np.concatenate([rows for s in scenarios for rows in (s.tasks.query, s.tasks.support)])
    assert len(held)
    turned = dataclasses.replace(data, rating=data.rating.copy())
    turned.rating[held] = 6 - data.rating[held]
    values = []
    for name, ratings in (("as it is", data), ("turned", turned)):
        found = search.tune(config, tmp_path / name, trials=2, space=SPACE, metric="ndcg@5", data=ratings)
        values.append(found.trials)
    assert values[0] == values[1]
    assert found.value == max(value for _, value, _ in found.trials)


def test_a_trial_shares_what_it_does_not_change(config):
    experiment = build(config)
    other = search.rebuild(
        experiment, search_space.with_options(config, {"learner.hidden": 7, "train.users_per_step": 16})
    )
    assert other.catalogue is experiment.catalogue
    assert other.config.learner.hidden == 7
    assert other.train.source.users_per_batch == 16
    fewer = search.rebuild(experiment, search_space.with_options(config, {"episodes.query": 5}))
    assert fewer.train.source.config.query == 5


def test_impossible_trials_are_told_and_left_out(config, tmp_path):
    class Ears:
        said = ()

        def note(self, text):
            self.said = (*self.said, text)

        bar = staticmethod(search.QUIET.bar)

    ears = Ears()
    with pytest.raises(MetarecError, match="none of 2 trials could be trained"):
        search.tune(config, tmp_path / "s", trials=2, space={"encoder.max_length": [10**6]}, reporter=ears)
    assert any(said.startswith("trial 0: ") for said in ears.said)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "a search space is a JSON object"),
        ({"train.speed": [1]}, "there is no option 'train.speed'"),
        ({"train": [1]}, "there is no option 'train'"),
        ({"train.rate": []}, "give a list of values"),
        ({"train.rate": {"low": 1}}, "give a list of values"),
        ({"train.rate": {"low": 0.2, "high": 0.1}}, "which is no range"),
        ({"train.rate": {"low": -1, "high": 0.1}}, "train.rate is -1"),
        ({"learner.hidden": [0]}, "learner.hidden is 0"),
        ({"learner.kind": {"low": 0, "high": 1}}, "give a list of values"),
        ({"train.weight_decay": {"low": 0.0, "high": 1.0, "log": True}}, "which is no range"),
    ],
)
def test_impossible_spaces_are_refused(space, said, config):
    with pytest.raises(MetarecError) as caught:
        search_space.read_space(space, config)
    assert said in str(caught.value)


@pytest.mark.slow
def test_the_command_prints_what_to_do_next(searched, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.json").write_text(json.dumps({"updater.steps": [0, 1]}))
    small = ["--preset", "synthetic", "--train.epochs", "1", "--learner.user-side", "none", "--learner.hidden", "4"]
    arguments = ["tune", *small, "--updater.steps", "1", "--space", "space.json", "--trials", "2", "--out", "found"]
    assert main.main(arguments) == 0
    assert "next: metarec train --config found/best.json" in capsys.readouterr().out
    assert (tmp_path / "found" / "tuning.png").stat().st_size > 1000
    assert main.main([*arguments, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 2
    assert main.main([*arguments[:-1], "other", "--metric", "speed"]) == 2
