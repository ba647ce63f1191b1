"""What pretraining never sees, and who may use what it made."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from small import small_config, small_data

from metarec_jax.config.pretrain import starting_from
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.data.leakage import MARK, refuse_leak
from metarec_jax.data.splits import split_users
from metarec_jax.train.pretraining.held_out import held_out_items, mark, seen


@pytest.fixture
def marked(tmp_path):
    """A folder with the mark of a pretraining with `small_config`."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    mark(folder, small_data(), seen(small_data(), small_config()), small_config(), "a small encoder")
    return folder


def splits(seed: int = 0):
    return split_users(small_data(), small_config().episodes, seed)


def test_seen_is_what_training_users_did_with_items_that_are_not_held_out():
    data, config = small_data(), small_config()
    found = seen(data, config)
    for part, wanted in zip(found.splits, splits()):
        np.testing.assert_array_equal(part, wanted)
    assert found.cold.sum() == 4
    for row in range(len(data)):
        own = data.user[row] in found.splits.train and not found.cold[data.item[row]]
        assert found.rows[row] == own


def test_held_out_items_are_a_share_by_the_seed():
    first, again, other = (held_out_items(20, 0.2, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert not held_out_items(20, 0.0, 0).any()


def test_a_split_is_that_of_the_runs_that_will_use_it():
    run = Config(seed=7)
    config = starting_from(run)
    assert (config.data, config.episodes, config.seed) == (run.data, run.episodes, run.seed)
    assert config.run == dataclasses.replace(run, encoder=config.encoder)


def test_an_encoder_is_allowed_with_its_own_split(marked):
    refuse_leak(str(marked), small_data(), splits())
    cold = seen(small_data(), small_config()).cold
    refuse_leak(str(marked), small_data(), splits(), cold=cold)


def test_an_encoder_is_refused_where_its_users_validate_or_test(marked):
    with pytest.raises(MetarecError) as error:
        refuse_leak(str(marked), small_data(), splits(1))
    for word in (str(marked), "with seed 0", "of this run's 8 test users", "--episodes"):
        assert word in str(error.value)
    # Validation users alone are enough.
    own = splits()
    swapped = own._replace(validation=own.train[:3], train=own.validation)
    with pytest.raises(MetarecError, match="on 3 of this run's 3 validation users"):
        refuse_leak(str(marked), small_data(), swapped)


def test_an_encoder_is_refused_where_its_items_are_held_out(marked):
    cold = seen(small_data(), small_config()).cold
    with pytest.raises(MetarecError, match="on 16 of this run's 16 held-out items"):
        refuse_leak(str(marked), small_data(), splits(), cold=~cold)


def test_marks_are_kept_by_what_is_pretrained_further(marked, tmp_path):
    """A second pretraining, with another split, does not wash out the first."""
    again = tmp_path / "again"
    again.mkdir()
    second = small_config(seed=1, encoder=dataclasses.replace(small_config().encoder, path=str(marked)))
    mark(again, small_data(), seen(small_data(), second), second, "the first")
    assert [document["seed"] for document in json.loads((again / MARK).read_text())] == [0, 1]
    for seed in (0, 1):
        with pytest.raises(MetarecError, match=f"with seed {1 - seed}"):
            refuse_leak(str(again), small_data(), splits(seed))


def test_users_of_other_data_are_other_people(marked):
    data = small_data()
    users = dataclasses.replace(data.users, ids=tuple(f"other {name}" for name in data.users.ids))
    refuse_leak(str(marked), dataclasses.replace(data, users=users), splits(1))


@pytest.mark.parametrize("path", ["minilm", "random", "org/name", "~nobody/encoder", "x" * 5000, ""])
def test_encoders_without_a_mark_are_allowed(path):
    refuse_leak(path, small_data(), splits(1))


@pytest.mark.parametrize("text", ["", "{", "{}", "[3]", '[{"users": 3}]', '[{"users": [], "items_held_out": []}]'])
def test_a_damaged_mark_is_refused(marked, text):
    (marked / MARK).write_text(text)
    with pytest.raises(MetarecError, match=r"pretraining\.json(, line 1: not valid JSON| is damaged)"):
        refuse_leak(str(marked), small_data(), splits())


def test_nothing_left_to_read_is_refused():
    with pytest.raises(MetarecError, match=r"leaves none of 20 items"):
        seen(small_data(), small_config(held_out=0.99))
