import dataclasses
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from trained import fresh, small_config, small_data, trained_run

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.learner.transformer import TransformerConfig
from metarec_jax.meta.outer import predict
from metarec_jax.meta.updaters.meta_sgd import MetaSgdConfig
from metarec_jax.meta.updaters.ridge import RidgeConfig
from metarec_jax.recommender.recommender import Limits, Rated, Recommender
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.catalogue import Catalogue, Scale
from metarec_jax.train.model import init_trainable, make_model
from metarec_jax.train.parameters import load_trainable

ITEMS = 120
LIKES = {1: 5, 2: 1, 3: 4, 40: 2}


def drawn_history(number: int, length: int) -> list[Rated]:
    rng = np.random.default_rng(number)
    return [Rated(int(i) + 1, float(rng.integers(1, 6))) for i in rng.permutation(ITEMS)[:length]]


def untrained(*, side: str = "profile", head: str = "classes", limits: Limits = Limits(), **changes) -> Recommender:  # noqa: B008
    """A recommender with random parameters that depend on the user."""
    data = small_data()
    config = small_config()
    scale = Scale("click", (0.0, 1.0), 0.0, 1.0) if head == "click" else Scale("rating", data.scale.levels, 1.0, 5.0)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, kind=scale.kind),
        learner=dataclasses.replace(changes.pop("learner", config.learner), user_side=side, head=head),
        **changes,
    )
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(ITEMS, 64)).astype(np.float32)
    count = np.arange(ITEMS, dtype=np.float32)
    catalogue = Catalogue(data.items, catalogues.Statistics(count * scale.high / 2, count), embeddings, scale)
    users = rng.normal(size=(30, 0 if side == "none" else 64)).astype(np.float32)
    trainable = init_trainable(config, make_model(config, scale), catalogue, users, jax.random.key(0))
    for layer in (trainable.theta["output"], trainable.theta["hidden"]["user"]):  # both start at zero
        layer["kernel"] = jnp.asarray(rng.normal(size=layer["kernel"].shape), jnp.float32)
    return Recommender(config, catalogue, jax.device_get(trainable), limits=limits)


@pytest.fixture(scope="module")
def drawn() -> Recommender:
    return untrained(side="none")


def test_scores_are_those_of_the_evaluation(recommender):
    experiment = build(small_config())
    run = run_folder.open_run(trained_run())
    trainable = load_trainable(run, catalogues.load(run))
    episodes = experiment.test.source[0]
    trainable, tables, on_device = jax.device_put((trainable, experiment.test.tables, episodes))
    outputs = predict(experiment.model, trainable, experiment.model.prepare(trainable.theta, tables), on_device)
    want = jax.vmap(experiment.model.head.mean)(outputs)
    for user in range(3):
        support = jax.tree.map(lambda leaf, user=user: leaf[user], episodes.support)
        history = [Rated(int(i) + 1, float(r)) for i, r, m in zip(*support[:3]) if m]
        state = recommender.adapt(history[::-1])  # a support counts from the latest interaction
        assert_close(recommender.score(state, (episodes.query.item[user] + 1).tolist()), np.asarray(want[user]))


def test_adapting_changes_the_list(recommender):
    fan = recommender.recommend(recommender.adapt({7: 5, 8: 5, 9: 5}), k=ITEMS - 3)
    foe = recommender.recommend(recommender.adapt({7: 1, 8: 1, 9: 1}), k=ITEMS - 3)
    prior = recommender.recommend(recommender.adapt(), k=ITEMS)
    assert [r.id for r in fan] != [r.id for r in foe]
    assert sum(r.score for r in fan) > sum(r.score for r in foe)
    assert [r.id for r in prior if r.id not in ("7", "8", "9")] != [r.id for r in fan]


def test_empty_histories_are_equal(recommender):
    empty, prior = recommender.adapt(), recommender.adapt()
    assert recommender.recommend(empty) == recommender.recommend(prior)
    assert recommender.recommend(recommender.adapt({})) == recommender.recommend(prior)


def test_a_list_is_the_best_unseen_items_in_order(recommender):
    state = recommender.adapt(LIKES)
    found = recommender.recommend(state, k=25)
    unseen = [i for i in range(1, ITEMS + 1) if i not in LIKES]
    scores = recommender.score(state, unseen)
    assert [r.score for r in found] == sorted((r.score for r in found), reverse=True)
    np.testing.assert_allclose([r.score for r in found], np.sort(scores)[::-1][:25], rtol=1e-5)
    assert {int(r.id) for r in found}.isdisjoint(LIKES)
    assert all(r.title.endswith(f" {r.id}") for r in found)
    assert [r.ratings for r in found] == [int(recommender.catalogue.statistics.count[int(r.id) - 1]) for r in found]


def test_seen_items_can_be_listed_and_a_list_ends_where_nothing_is_left(recommender):
    state = recommender.adapt(LIKES)
    everything = recommender.recommend(state, k=ITEMS, exclude_seen=False)
    assert sorted(int(r.id) for r in everything) == list(range(1, ITEMS + 1))
    unseen = recommender.recommend(state, k=ITEMS)
    assert [r for r in everything if int(r.id) not in LIKES] == unseen


def test_many_users_at_once_are_the_same_users_one_by_one(drawn):
    histories = [drawn_history(u, length) for u, length in enumerate([0, 1, 16, 17, 5, 60, 90, 3, 33, 16])]
    together = drawn.recommend_many(drawn.adapt_many(histories), k=8)
    for history, found in zip(histories, together):
        alone = drawn.recommend(drawn.adapt(history), k=8)
        assert [r.id for r in found] == [r.id for r in alone]
        np.testing.assert_allclose([r.score for r in found], [r.score for r in alone], rtol=1e-5)


def test_more_users_than_a_batch_holds(drawn):
    few = untrained(side="none", limits=Limits(batch_sizes=(1, 4)))
    histories = [drawn_history(u, 6) for u in range(9)]
    want = drawn.recommend_many(drawn.adapt_many(histories), k=5)
    got = few.recommend_many(few.adapt_many(histories), k=5)
    assert [[r.id for r in found] for found in got] == [[r.id for r in found] for found in want]


def test_there_is_one_program_for_each_support_length_and_batch_size(compilations):
    untouched = untrained(side="none")
    for lengths in ([1, 3, 7, 16], [20, 32, 17]):
        for length in lengths:
            untouched.recommend(untouched.adapt(drawn_history(length, length)), k=10 + length % 3)
    assert compilations.count("jit(adapt)") == compilations.count("jit(score_all)") == 2
    untouched.recommend_many(untouched.adapt_many([drawn_history(u, 1 + u % 16) for u in range(50)]))
    untouched.recommend_many(untouched.adapt_many([drawn_history(u, 1 + u % 16) for u in range(20)]))
    assert (
        compilations.count("jit(adapt)") == compilations.count("jit(score_all)") == 3
    )  # both calls are filled up to 64


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="factored"),
        pytest.param({"updater": MetaSgdConfig(steps=2)}, id="dense"),
        pytest.param({"learner": TransformerConfig(hidden=16, width=8)}, id="transformer"),
        pytest.param({"updater": UpdaterConfig(steps=2, order="reptile")}, id="reptile", marks=pytest.mark.slow),
        pytest.param({"updater": UpdaterConfig(steps=2, adapted=("output/.*",))}, id="shared", marks=pytest.mark.slow),
    ],
)
def test_a_large_catalogue_is_ranked_in_blocks_as_a_small_one_at_once(changes):
    """Lists do not depend on blocks of items, precomputed products, or micro-batches of users."""
    histories = [drawn_history(u, length) for u, length in enumerate([0, 3, 16, 9])]

    def lists(**limits: int) -> list:
        recommender = untrained(side="none", limits=Limits(**limits), **changes)
        states = recommender.adapt_many(histories)
        return recommender.recommend_many(states, k=ITEMS) + [recommender.recommend(state, k=7) for state in states]

    whole = lists()
    parts = lists(items_at_once=50, gram_items=50, floats_at_once=1, users_adapted_at_once=2)
    for left, right in zip(whole, parts, strict=True):
        assert [r.id for r in left] == [r.id for r in right]
        np.testing.assert_allclose([r.score for r in left], [r.score for r in right], rtol=1e-5)


def test_padding_changes_nothing(drawn):
    other = untrained(side="none", episodes=dataclasses.replace(drawn.config.episodes, buckets=(4, 90)))
    for length in (4, 5):
        history = drawn_history(length, length)
        want = drawn.recommend(drawn.adapt(history), k=ITEMS - length)
        got = other.recommend(other.adapt(history), k=ITEMS - length)
        assert [r.id for r in got] == [r.id for r in want]
        np.testing.assert_allclose([r.score for r in got], [r.score for r in want], rtol=1e-5)


def test_a_long_history_is_truncated_and_all_of_it_is_excluded(drawn):
    history = drawn_history(5, 100)
    state = drawn.adapt(history)
    assert state.notes == ("of 100 ratings the latest 90 are used: the model was trained on no more",)
    shorter = drawn.adapt(history[-90:])
    assert shorter.notes == ()
    names = [item for item, _ in history]
    np.testing.assert_array_equal(drawn.score(state, names), drawn.score(shorter, names))
    assert len(drawn.recommend(state, k=ITEMS)) == ITEMS - 100


def test_titles_ids_and_numbers_name_the_same_items(drawn):
    titles = drawn.catalogue.items.titles
    ways = [{1: 5, 2: 1}, {titles[0]: 5, titles[1].upper(): 1}, [("id:1", 5), ("id:2", 1)], [Rated(1, 5), Rated(2, 1)]]
    lists = [drawn.recommend(drawn.adapt(way)) for way in ways]
    assert lists[0] == lists[1] == lists[2] == lists[3]


def test_a_text_is_scored_as_an_item_without_ratings(recommender):
    nobody = dataclasses.replace(
        recommender.catalogue, statistics=catalogues.Statistics(*np.zeros((2, ITEMS), np.float32))
    )
    other = Recommender(recommender.config, nobody, jax.device_get(recommender.executor.trainable))
    state = other.adapt(LIKES)
    texts = recommender.catalogue.items.texts
    for item in (5, 77):
        assert other.score_text(state, texts[item]) == pytest.approx(other.score(state, [item + 1])[0], rel=1e-5)
    assert other.score_text(state, texts[5]) != other.score_text(state, texts[77])


def test_an_empty_profile_is_the_average_user():
    by_profile = untrained(side="profile")
    lists = [
        by_profile.recommend(by_profile.adapt(profile=text), k=ITEMS) for text in ("", "a nurse", "a sailor", "  ")
    ]
    assert lists[0] == lists[3]
    assert len({tuple(r.id for r in found) for found in lists}) == 3
    states = by_profile.adapt_many([LIKES, LIKES], ["a nurse", ""])
    np.testing.assert_allclose(states[1].embedding, by_profile.executor.average_user)
    assert not np.allclose(states[0].embedding, by_profile.executor.average_user)


def test_without_a_user_side_there_is_no_user_embedding(drawn):
    state = drawn.adapt(LIKES)
    assert state.embedding.shape == (0,)
    assert drawn.recommend(state) != drawn.recommend(drawn.adapt())


def test_clicks_are_scored_as_probabilities_and_are_0_or_1():
    clicks = untrained(side="none", head="click")
    found = clicks.recommend(clicks.adapt({1: 1, 2: 0, 3: 1}), k=ITEMS)
    assert all(0 <= r.score <= 1 for r in found)
    with pytest.raises(MetarecError, match=r"2 has 0\.5; write 1 \(clicked\) or 0"):
        clicks.adapt({2: 0.5})


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({"Nobody Knows This": 3}, "no item is called 'Nobody Knows This'; the nearest are: "),
        ({999: 3}, "no item has the id '999'; the 120 items have ids such as"),
        ({1: 6}, "1 is rated 6; ratings lie between 1 and 5"),
        ({1: 0}, "1 is rated 0; ratings lie between 1 and 5"),
        ({1: float("nan")}, "1 is rated nan; ratings lie between 1 and 5"),
        ({1: float("inf")}, "1 is rated inf; ratings lie between 1 and 5"),
        ([(1, 4), (2, 4), (1, 5)], "1 is there twice: an item has one rating, so keep one of the two"),
        ([(1, 4), ("id:1", 4)], "1 and 'id:1' are one item: an item has one rating, so keep one of the two"),
    ],
)
def test_a_history_with_a_mistake_is_refused(recommender, history, message):
    with pytest.raises(MetarecError) as caught:
        recommender.adapt(history)
    assert str(caught.value).startswith(message)
    with pytest.raises(MetarecError) as caught:
        recommender.adapt_many([{3: 3}, history])
    assert str(caught.value).startswith(f"history 2 of 2: {message}")


@pytest.mark.parametrize("k", [0, -1, ITEMS + 1])
def test_an_impossible_k_is_refused(recommender, k):
    with pytest.raises(MetarecError, match=rf"k is {k}; it must lie between 1 and 120, the number of items"):
        recommender.recommend(recommender.adapt(), k=k)


def test_a_profile_for_a_run_that_reads_none_is_refused(recommender):
    with pytest.raises(MetarecError, match=r"this run reads none: its learner\.user_side is 'description'"):
        recommender.adapt(LIKES, profile="a nurse")
    with pytest.raises(MetarecError, match="there are 1 profiles for 2 histories"):
        recommender.adapt_many([{}, {}], [""])


def test_an_empty_text_is_refused(recommender):
    with pytest.raises(MetarecError, match="the text of the item is empty"):
        recommender.score_text(recommender.adapt(), "  ")


def test_nan_predictions_are_refused():
    wild = untrained(side="none", updater=dataclasses.replace(small_config().updater, rate=1e30))
    with pytest.raises(MetarecError, match="its inner steps diverge"):
        wild.recommend(wild.adapt(drawn_history(0, 12)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e3])
def test_parameters_that_are_not_finite_are_refused_by_name(drawn, value):
    """A logarithm of a rate that is 1,000 means an infinite rate."""
    trainable = jax.tree.map(np.array, jax.device_get(drawn.executor.trainable))
    trainable.phi["log_rate"]["output"]["bias"][1] = value
    with pytest.raises(MetarecError, match=r"^exp\(phi/log_rate/output/bias\) of the run's parameters is infinite or"):
        Recommender(drawn.config, drawn.catalogue, trainable)


# Uncertainty


def test_the_uncertainty_of_a_rating_is_that_of_bayesian_regression():
    """``unit^2 (s + h^T A^-1 h)`` by numpy, with ``A = H^T H / s + P`` over the user's ratings (Bishop 2006, 3.59)."""
    ridge = untrained(side="none", head="rating", updater=RidgeConfig(adapted=("output/.*",), precision=0.5))
    trainable = jax.tree.map(np.array, jax.device_get(ridge.executor.trainable))
    trainable.phi["log_noise"][...] = np.log(0.2)
    ridge = Recommender(ridge.config, ridge.catalogue, trainable)
    theta = trainable.theta

    def features(rows):
        shift, scale = theta["input"]["item"]["shift"], theta["input"]["item"]["scale"]
        first = (ridge.catalogue.embeddings[rows] - shift) * scale @ theta["hidden"]["item"]["kernel"]
        hidden = np.maximum(first + theta["hidden"]["bias"], 0) / np.sqrt(first.shape[1])
        return np.concatenate([hidden, np.ones((len(rows), 1))], axis=1).astype(np.float64)

    assert ridge.gives_uncertainty
    asked = [5, 6, 77]
    wide = None
    for history in ({}, LIKES):
        rated = features(np.array([item - 1 for item in history], int))
        h = features(np.array(asked) - 1)
        covariance = np.linalg.inv(rated.T @ rated / 0.2 + 0.5 * np.eye(h.shape[1]))
        wanted = np.sqrt(0.2 + np.sum(h @ covariance * h, axis=1))  # the unit of ratings from 1 to 5 is 1
        found = ridge.uncertainty(ridge.adapt(history), asked)
        assert found.shape == (3,)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert wide is None or (found < wide).all(), "what a user rated makes the model more certain"
        wide = found


def test_the_unit_of_an_uncertainty_is_a_rating(drawn):
    """A scale twice as long, the same outputs: twice the deviation."""
    updater = RidgeConfig(adapted=("output/.*",))
    ridge = untrained(side="none", head="rating", updater=updater)
    longer = dataclasses.replace(ridge.catalogue, scale=Scale("rating", (), 1.0, 9.0))
    other = Recommender(ridge.config, longer, jax.device_get(ridge.executor.trainable))
    found, doubled = (r.uncertainty(r.adapt(), [5, 6]) for r in (ridge, other))
    np.testing.assert_allclose(doubled, 2 * found, rtol=1e-6)


@pytest.mark.parametrize("head", ["rating", "classes", "click"])
def test_other_models_have_no_uncertainty(head):
    """Another rule, or outputs that are no ratings."""
    rule = {} if head == "rating" else {"updater": RidgeConfig(adapted=("output/.*",))}
    other = untrained(side="none", head=head, **rule)
    assert not other.gives_uncertainty
    with pytest.raises(MetarecError, match=r"predicts no uncertainty: train with --updater\.kind ridge .*head rating$"):
        other.uncertainty(other.adapt(), [5])


def test_an_encoder_of_another_width_is_refused(recommender):
    config = dataclasses.replace(recommender.config, encoder=EncoderConfig(path="minilm"))
    other = Recommender(config, recommender.catalogue, jax.device_get(recommender.executor.trainable))
    with pytest.raises(MetarecError, match="an encoder of width 384, but the run's items have embeddings of width 64"):
        other.texts.encoder  # noqa: B018


# Run folders


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(trained_run(), tmp_path / "copy")


def test_loading_a_run_does_not_change_it(copy):
    half_saved = copy / "checkpoints" / "99.orbax-checkpoint-tmp"
    half_saved.mkdir()
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    Recommender.load(copy)
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_an_answer_imports_nothing_that_training_needs(tmp_path):
    code = (
        "import sys; from metarec_jax.cli.main import main; "
        f"main(['recommend', {str(trained_run())!r}, '--json']); "
        "heavy = {'flax', 'orbax', 'grain', 'transformers', 'torch', 'pandas', 'matplotlib'}; "
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "METAREC_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stderr == "[]\n"
    assert len(json.loads(done.stdout)["recommended"]) == 10


TRACED = """
import sys
import jax
from metarec_jax.cli.main import main

names = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **more: names.append(more.get("fun_name")) if "jaxpr_trace" in event else None
)
status = main(sys.argv[1:])
print(names.count("flat"), file=sys.stderr)  # as `Traced` names the functions that it exports
raise SystemExit(status)
"""
"""Runs a command, and prints how many programs were traced that are kept between starts."""


def test_a_second_answer_traces_nothing(tmp_path):
    """And is the same."""
    environment = {**os.environ, "METAREC_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    ask = ["recommend", str(trained_run()), "--rate", f"id:{small_data().items.ids[0]}=5", "--json"]
    answers = []
    for traced in (3, 0):  # preparing the items, adapting, scoring
        done = subprocess.run(
            [sys.executable, "-c", TRACED, *ask], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stderr.splitlines()[-1]) == traced
        answers.append(done.stdout)
    assert answers[0] == answers[1]
    assert len(list(tmp_path.rglob("traced/*"))) == 3


def change_config(folder, **changes):
    document = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        group, _, field = name.rpartition("__")
        (document[group] if group else document)[field] = value
    (folder / "config.json").write_text(json.dumps(document))


def truncate(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: shutil.rmtree(run), r"is not a run folder: .*config\.json does not exist; make a run with"),
        (lambda run: (run / "config.json").write_text("{"), r"config\.json, line 1: not valid JSON"),
        (lambda run: change_config(run, layout=7), r"layout version 7, and this version of metarec_jax reads 1"),
        (lambda run: change_config(run, train__epochs="two"), r"config\.json: train\.epochs is 'two'"),
        (lambda run: (run / "catalogue.parquet").unlink(), r"catalogue\.parquet does not exist: restore"),
        (lambda run: (run / "catalogue.parquet").write_bytes(b"PAR1"), r"catalogue\.parquet is damaged"),
        (lambda run: (run / "tables.safetensors").write_bytes(b"{}"), r"tables\.safetensors is damaged"),
        (
            lambda run: (run / "parameters.safetensors").write_bytes(b"{}"),
            r"parameters\.safetensors is damaged .*restore it from a copy",
        ),
        (
            lambda run: truncate(run / "parameters.safetensors", 0.5),
            r"parameters\.safetensors is damaged .*restore it from a copy",
        ),
        (
            lambda run: truncate(run / "parameters.safetensors", 0),
            r"parameters\.safetensors is damaged .*restore it from a copy",
        ),
        (
            lambda run: (run / "parameters.safetensors").unlink(),
            r"holds no file of trained parameters yet: no epoch has ended",
        ),
        (
            lambda run: change_config(run, learner__hidden=9),
            r"does not fit the run's config\.json: .*hidden.* float32",
        ),
        (lambda run: change_config(run, learner__head="rating"), r"does not fit the run's config\.json: "),
        (lambda run: change_config(run, updater__steps=3), r"does not fit the run's config\.json: .*log_rate"),
    ],
)
def test_a_run_folder_with_a_mistake_is_refused(copy, spoil, message):
    spoil(copy)
    with pytest.raises(MetarecError, match=message):
        Recommender.load(copy)


def test_truncation_is_reported_once(recommender):
    other = fresh(recommender)
    state, text = other.adapt({"id:1": 5}), "bees and honey " * 2000
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than .* tokens and were cut") as said:
        scores = [other.score_text(state, long) for long in (text, text, text + " and wasps")]
    assert len(said) == 1
    assert len(set(scores)) == 1
    told = []
    trainable, encoder = other.executor.trainable, other.texts.encoder
    Recommender(other.config, other.catalogue, trainable, encoder, report=told.append).add_item(text)
    assert len(told) == 1
