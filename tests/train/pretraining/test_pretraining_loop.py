"""The loop: stopping and going on anywhere leads to the same bits; nothing that is held out leaves a trace."""

from __future__ import annotations

import dataclasses
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_equal
from small import host, small_config, small_data, small_encoder, small_pretraining
from training import Watch, stopping_at, write_table

from metarec_jax.config.pretrain import MlmConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.encoder import load as load_encoder
from metarec_jax.encoder import save as save_encoder
from metarec_jax.train import loop, run_folder
from metarec_jax.train.checkpoints import Checkpoints, Progress
from metarec_jax.train.pretraining import start as launch
from metarec_jax.train.pretraining.mlm import Sum
from metarec_jax.train.pretraining.program import pretraining_program
from metarec_jax.train.pretraining.start import fit
from metarec_jax.train.pretraining.step import Losses, first_state


@pytest.fixture(scope="module")
def pretraining():
    return small_pretraining()


@pytest.fixture(scope="module")
def uninterrupted(pretraining, tmp_path_factory):
    """(what `fit` returned, its run) from start to end."""
    run = run_folder.create(
        tmp_path_factory.mktemp("uninterrupted") / "run", pretraining.config, command=launch.COMMAND
    )
    return fit(run, pretraining), run


@pytest.fixture
def run(pretraining, tmp_path):
    return run_folder.create(tmp_path / "run", pretraining.config, command=launch.COMMAND)


def lines(run) -> list[dict]:
    found = [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("steps_per_second", "seconds")} for line in found
    ]


def test_everything_is_trained_and_judged(uninterrupted, pretraining):
    fitted, run = uninterrupted
    start = host(first_state(pretraining.config, small_encoder()).weights)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, host(fitted.weights))
    assert [name for name, one in zip(path_names(moved), jax.tree.leaves(moved)) if not one] == []
    assert fitted.step == 6
    assert fitted.signal is None
    written = lines(run)
    assert [line["step"] for line in written] == [0, 3, 6]
    judged = {f"{kind}_{part}" for kind in ("perplexity", "contrastive") for part in ("users", "items")}
    assert fitted.before.keys() == fitted.after.keys() == judged
    assert written[1].keys() == {"step", "train_masked_loss", "train_liked_loss", *judged}
    assert fitted.after["perplexity_users"] < fitted.before["perplexity_users"]


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([3], id="at a judgement", marks=pytest.mark.slow),
        pytest.param([4], id="between two", marks=pytest.mark.slow),
        pytest.param([1, 3, 4], id="again and again"),
    ],
)
def test_a_resumed_pretraining_equals_an_uninterrupted_one(run, pretraining, uninterrupted, stops):
    for stop in stops:
        fitted = fit(run, pretraining, reporter=stopping_at(stop))
        assert fitted.signal == signal.SIGTERM
        assert stop <= fitted.step <= stop + 1
    fitted, (wanted, other) = fit(run, pretraining), uninterrupted
    assert_equal(fitted.weights, wanted.weights)
    assert (fitted.before, fitted.after, fitted.signal) == (wanted.before, wanted.after, None)
    assert lines(run) == lines(other)
    like = pretraining.put(first_state(pretraining.config, small_encoder()))
    states = []
    for one in (run, other):
        with Checkpoints(one.checkpoints) as checkpoints:
            assert checkpoints.latest() == Progress(6, 2, {"next": 6}, {}, 2, 6, 1e30, finished=True)
            states.append(host(checkpoints.load(like, 6)))
    assert_equal(*states)


def test_one_that_broke_off_without_saving_goes_on_from_its_last_checkpoint(run, pretraining, uninterrupted):
    class Unplugged(Exception):
        pass

    def unplug(step):
        if step == 5:
            raise Unplugged

    with pytest.raises(Unplugged):
        fit(run, pretraining, reporter=Watch(on_step=unplug))
    wanted, other = uninterrupted
    assert_equal(fit(run, pretraining).weights, wanted.weights)
    assert lines(run) == lines(other)


def test_a_finished_one_is_left_as_it_is(uninterrupted, pretraining):
    wanted, run = uninterrupted
    before = lines(run)
    again = fit(run, pretraining)
    assert_equal(again.weights, wanted.weights)
    assert (again.before, again.after, lines(run)) == (wanted.before, wanted.after, before)


def test_nothing_held_out_leaves_a_trace(pretraining, uninterrupted, tmp_path):
    """Other ratings by validation and test users, other ratings and other words of held-out items: the same bits."""
    data, read = small_data(), pretraining.seen
    hidden = ~read.rows
    rating = np.where(hidden, 6 - data.rating, data.rating).astype(np.float32)
    assert (rating != data.rating).any()
    letters = str.maketrans("abcdefghijklmnopqrstuvwxyz", "bcdefghijklmnopqrstuvwxyza")
    texts, titles = (
        tuple(text.translate(letters) if cold else text for text, cold in zip(column, read.cold))
        for column in (data.items.texts, data.items.titles)
    )
    assert texts != data.items.texts
    items = dataclasses.replace(data.items, texts=texts, titles=titles)
    other = small_pretraining(data=dataclasses.replace(data, rating=rating, items=items))
    assert other.fingerprint() != pretraining.fingerprint()
    fitted = fit(run_folder.create(tmp_path / "other", other.config, command=launch.COMMAND), other)
    wanted, _ = uninterrupted
    assert_equal(fitted.weights, wanted.weights)
    assert fitted.after != wanted.after, "what is held out is what it is judged on"


def test_what_is_not_held_out_does_leave_a_trace(pretraining):
    """So that the test above compares something."""
    data, read = small_data(), pretraining.seen
    rating = np.where(read.rows, 6 - data.rating, data.rating).astype(np.float32)
    other = small_pretraining(data=dataclasses.replace(data, rating=rating))
    same = [
        np.array_equal(a, b)
        for step in range(6)
        for a, b in zip(jax.tree.leaves(pretraining.source[step]), jax.tree.leaves(other.source[step]))
        if a.shape == b.shape
    ]
    assert not all(same)


@pytest.mark.parametrize("train", ["lora", "frozen"])
def test_only_what_should_be_trained_is(train):
    config = small_config(objective="mlm", mlm=MlmConfig(tokens_per_step=128, item_share=1.0))
    chosen = {"train": "lora", "lora_rank": 2} if train == "lora" else {"frozen_layers": 1}
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **chosen))
    own = small_pretraining(config)
    state = own.put(first_state(config, small_encoder()))
    before = host(state.weights)
    for _ in range(2):  # the rate of the first step of a warm-up is 0
        state, _ = own.step(state, 0)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, host(state.weights))
    names = {name for name, one in zip(path_names(moved), jax.tree.leaves(moved)) if one}
    assert any(name.startswith("head/") for name in names)
    encoder = {name.removeprefix("encoder/") for name in names if name.startswith("encoder/")}
    assert encoder
    if train == "lora":
        assert all(name.rsplit("/", 1)[1].startswith("lora_") for name in encoder)
    else:
        assert all(name.startswith("layer_1/") for name in encoder)


# What can go wrong


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_refused_and_nothing_of_it_is_saved(run, pretraining):
    program = pretraining_program(pretraining)

    def broken():
        state = program.first_state()
        head = jax.tree.map(lambda leaf: leaf * jnp.nan, state.weights.head)
        return state._replace(weights=state.weights._replace(head=head))

    with pytest.raises(MetarecError, match=r"loss on hidden words became nan at step 1: lower --encoder\.rate"):
        loop.train(run, dataclasses.replace(program, first_state=broken))
    assert not [path for path in run.checkpoints.iterdir() if path.name.isdigit()]


def test_parameters_that_overflow_are_named(run, pretraining):
    zero = Losses(*[Sum(jnp.zeros(()), jnp.zeros(()))] * 2)
    overflow = jax.jit(lambda weights: jax.tree.map(lambda leaf: leaf * jnp.inf, weights))
    program = dataclasses.replace(
        pretraining_program(pretraining),
        step=lambda state, number: (state._replace(weights=overflow(state.weights)), zero),
    )
    with pytest.raises(MetarecError, match=r"became infinite or NaN by step 3: lower"):
        loop.train(run, program)


@pytest.mark.parametrize(
    ("objective", "wanted"),
    [
        ("both", "2 texts are longer than 32 tokens and are read in pieces, and cut where likes are trained for"),
        ("mlm", "2 texts are longer than 32 tokens and are read in pieces"),
        ("contrastive", "2 of 19 texts are longer than 32 tokens and were cut"),
    ],
)
def test_texts_that_are_too_long_are_told_of_once(objective, wanted):
    """Two, of which one is the text of two items; what users are told to have liked are titles, which are short."""
    data, watch = small_data(), Watch()
    texts = ["word " * 40, "word " * 40, "film " * 40, *data.items.texts[3:]]
    data = dataclasses.replace(data, items=dataclasses.replace(data.items, texts=tuple(texts)))
    config = small_config()
    config = dataclasses.replace(
        config, objective=objective, encoder=dataclasses.replace(config.encoder, max_length=32)
    )
    small_pretraining(config, data, reporter=watch)
    assert [note for note in watch.notes if "longer than" in note] == [wanted]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder": {"max_length": 33}}, ["max_length is 33", "32 positions", "--encoder.max-length 32"]),
        ({"encoder": {"frozen_layers": 3}}, ["frozen_layers is 3", "2 layers"]),
        ({"encoder": {"attention": "fused"}}, ["fused"]),
        ({"held_out": 0.99}, ["leaves none of 20 items", "--held-out"]),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, words):
    config = small_config()
    changes = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    data = small_data()
    disliked = dataclasses.replace(data, rating=np.minimum(data.rating, 4))
    with pytest.raises(MetarecError) as error:
        small_pretraining(dataclasses.replace(config, **changes), disliked)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"held_out": 1.0}, "held_out is 1.0"),
        ({"held_out": -0.1}, "held_out is -0.1"),
        ({"steps": 0}, "steps is 0"),
        ({"judge_every": 0}, "judge_every is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"encoder": {"train": "no"}}, "encoder.train is 'no'"),
        ({"mlm": {"share": 0.0}}, "mlm.share is 0.0"),
        ({"mlm": {"item_share": 1.5}}, "mlm.item_share is 1.5"),
        ({"mlm": {"head_rate": float("inf")}}, "mlm.head_rate is inf"),
        ({"contrastive": {"temperature": 0.0}}, "contrastive.temperature is 0.0"),
        ({"contrastive": {"users_per_step": 1}}, "contrastive.users_per_step is 1"),
        ({"contrastive": {"liked_per_user": 1}}, "contrastive.liked_per_user is 1"),
    ],
    ids=str,
)
def test_impossible_choices_are_refused(changes, words):
    config = small_config()
    with pytest.raises(MetarecError) as error:
        dataclasses.replace(
            config,
            **{
                name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
                for name, value in changes.items()
            },
        )
    assert words in str(error.value)


# From a config to a folder


def test_the_encoder_that_comes_out_is_the_trained_one(pretraining, uninterrupted, tmp_path):
    fitted, run = uninterrupted
    folder = launch.finish(run, pretraining, fitted)
    loaded = load_encoder(folder)
    assert_equal(host(loaded.params), host(fitted.weights.encoder))
    assert_equal(host(loaded.head), host(fitted.weights.head))
    assert (folder / "pretraining.json").exists()
    assert launch.finish(run, pretraining, fitted) == folder, "an encoder that is there is kept"


def test_a_run_is_not_resumed_on_other_data(tmp_path):
    table, encoder, folder = tmp_path / "ratings.csv", tmp_path / "encoder", tmp_path / "run"
    data, config = small_data(), small_config(objective="contrastive")
    write_table(data, table)
    save_encoder(small_encoder(), encoder)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, source="table", path=str(table)),
        encoder=dataclasses.replace(config.encoder, path=str(encoder)),
    )
    launch.start(config, folder)
    launch.resume(folder)
    rating = data.rating.copy()
    rating[0] = 6 - rating[0] if rating[0] != 3 else 4
    write_table(dataclasses.replace(data, rating=rating), table)
    with pytest.raises(MetarecError, match=r"inputs\.json: the ratings.*: no longer what the run began with"):
        launch.resume(folder)
    with pytest.raises(MetarecError, match="already holds a run: continue it with `metarec pretrain --resume"):
        launch.start(config, folder)
