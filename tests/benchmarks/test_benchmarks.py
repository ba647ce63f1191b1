"""The benchmarks run, refuse to time contenders that disagree, and write the one layout."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
from trained import trained_run

from benchmarks import encoder as of_encoder
from benchmarks import (
    explain,
    frozen,
    harness,
    inner_loop,
    joint,
    joint_accuracy,
    joint_memory,
    ours,
    packed_texts,
    phases,
    pretraining,
    report,
    variants,
)
from benchmarks import privacy as of_privacy
from benchmarks import serving as of_serving
from benchmarks.cases import SHARED, SMOKE, SMOKE_SHAPE, STANDARD
from benchmarks.tasks import task_of
from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.pretrain import ContrastiveConfig, MlmConfig, PretrainConfig
from metarec_jax.config.run import preset
from metarec_jax.core.environment import environment
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load as load_data
from metarec_jax.encoder import encode_table
from metarec_jax.encoder import load as load_encoder
from metarec_jax.recommender.recommender import Recommender


def test_turns_are_interleaved_and_paired():
    turns = []
    contenders = [harness.Contender(name, lambda name=name: turns.append(name)) for name in ("a", "b")]
    seconds = harness.take_turns(contenders, rounds=3, warmup=1)
    assert turns == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_of_pairs():
    # The machine slows down threefold on the way; every pair still says 2.
    seconds = {"ours": np.array([1.0, 2.0, 3.0]), "theirs": np.array([2.0, 4.0, 6.0])}
    (row,) = harness.compare("case", seconds, ours="ours", work=6, metric="users/s", bars={"theirs": 2.0})
    assert row.ratio == {"median": 2.0, "low": 2.0, "high": 2.0}
    assert (row.ours, row.theirs) == (3.0, 1.5)
    assert row.to_json()["met"] is True


def test_a_service_has_a_row_for_its_throughput_and_one_for_its_tail():
    """Gathered: twice the requests in the same time, each taking three times as long."""
    loads = {
        name: [of_serving.Load({"adapt": [each * (1 + turn)] * count}, 0, [], 10.0) for turn in range(3)]
        for name, count, each in (("gathered", 200, 0.03), ("one at a time", 100, 0.01))
    }
    rate, tail = of_serving.compared(loads, "case")
    assert (rate.metric, rate.ours, rate.theirs, rate.ratio["median"]) == ("requests/s", 20.0, 10.0, 2.0)
    assert rate.to_json()["met"] is False
    assert (tail.metric, tail.bar) == ("p99, ms", None)
    assert (tail.ours, tail.theirs, tail.ratio["high"]) == pytest.approx((60.0, 20.0, 1 / 3))


def test_the_smoke_case_runs_and_is_written(tmp_path):
    rows = inner_loop.measure(SMOKE, ["torch-loop"], rounds=3)
    harness.write(rows, tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert set(document) == {"environment", "rows"}
    for row in document["rows"]:
        assert {"case", "contender", "metric", "ours", "theirs", "ratio", "bar", "met"} <= set(row)
        assert (row["case"], row["met"]) == ("smoke", None)
    assert [row["contender"] for row in document["rows"] if row["metric"] == "users/s"] == [
        "dense",
        "dense in micro-batches",
        "torch-loop",
    ]


@pytest.mark.slow
def test_cost_is_fitted_over_users():
    cases = [dataclasses.replace(SMOKE, name=f"{users}", users=users) for users in (2, 4, 8)]
    seconds, compilation = inner_loop.grow(cases, rounds=3)
    assert seconds.facts["users"] == [2, 4, 8]
    assert seconds.facts["fit"].keys() == {"seconds_per_user", "seconds"}
    assert compilation.metric == "compile_s"


def test_contenders_that_disagree_are_not_timed():
    result = ours.program(task_of(SMOKE), "factored", at_once=0).result
    other = result._replace(theta=jax.tree.map(lambda leaf: leaf * 1.001, result.theta))
    with pytest.raises(SystemExit, match=r"somebody disagrees with the dense path: relative error 1\.0e-03"):
        inner_loop.agree("case", "somebody", result, other)


@pytest.mark.parametrize("form", ["factored", "dense"])
def test_products_are_counted_in_every_turn_of_every_loop(form):
    """A program with its loops written out has the same products, and no loop."""
    task = task_of(SMOKE)
    counted = ours.products(task, form, at_once=2)
    model, *arguments = ours.problem(task, form, unroll=SMOKE.steps)
    whole = phases.figures(jax.jit(ours.gradient_of(model, 0)).lower(*arguments).compile())["gflop"]
    assert counted == pytest.approx(ours.products(task, form, at_once=0), rel=0.02)
    assert 0.5 * whole < counted < whole, "the compiler counts products, and all else beside"


def test_what_a_jitted_function_does_is_counted_at_every_call():
    watched = phases.Watched(jax.jit(lambda a, b, flip=False: b @ a if flip else a @ b, static_argnames="flip"))
    few, many = np.ones((2, 3), np.float32), np.ones((5, 3), np.float32)
    right = np.ones((3, 4), np.float32)
    assert watched(few, right).shape == (2, 4)
    watched.start_over()
    for left in (few, few, many):
        watched(left, right)
    found = phases.together(watched.programs.values())
    assert sorted(calls for calls, _ in watched.programs.values()) == [1, 2]
    assert found["gflop_of_products"] == pytest.approx(2e-9 * 3 * 4 * (2 + 2 + 5))
    each = [facts for _, facts in watched.programs.values()]
    assert found["compile_s"] == pytest.approx(sum(facts["compile_s"] for facts in each))
    assert found["peak_mb"] == max(facts["peak_mb"] for facts in each)


def test_the_standard_case_is_the_one_of_the_table():
    got = (STANDARD.users, STANDARD.support, STANDARD.query, STANDARD.features, STANDARD.hidden, STANDARD.classes)
    assert (*got, STANDARD.steps) == (256, 20, 10, 768, 128, 5, 5)


def test_users_share_items_where_ratings_are_real():
    task = task_of(SHARED)
    ids = np.concatenate([task.support_ids, task.query_ids], axis=1)
    assert ids.shape == (256, 30)
    assert len(np.unique(ids)) < len(task.table) == 1682
    assert all(len(np.unique(row)) == 30 for row in ids)
    assert set(np.unique(task.support_labels)) == set(range(5))


MOST = {"gflop": 3.2, "gbytes_accessed": 0.31, "temporaries_mb": 22.0}
"""Of the standard case, as compiled by jax 0.10: 3.14, 0.292 and 18.9, where a loop's body counts once."""


def test_the_standard_case_stays_as_lean_as_it_is():
    """FLOPs, bytes and temporaries of the compiled meta-gradient: figures of the compiler, which no noise moves."""
    figures = ours.program(task_of(STANDARD), "factored", at_once=STANDARD.at_once).facts
    assert {name: figures[name] for name in MOST if figures[name] > MOST[name]} == {}
    assert figures["temporaries_mb"] / STANDARD.users < inner_loop.TEMPORARIES_PER_USER


@pytest.mark.slow
def test_compilation_does_not_grow_with_users_or_steps():
    """The program has as many operations, whatever their number."""

    def operations(**changes):
        task = task_of(dataclasses.replace(STANDARD, **changes))
        model, *arguments = ours.problem(task, "factored")
        text = jax.jit(ours.gradient_of(model, STANDARD.at_once)).lower(*arguments).as_text()
        return text.count("stablehlo.")

    assert operations(users=2048) == operations()
    assert operations(steps=50) == operations(steps=10) < 1.2 * operations()


def small_pretraining(seed: int) -> PretrainConfig:
    """A step on synthetic ratings."""
    return PretrainConfig(
        data=preset("synthetic").data,
        episodes=EpisodeConfig(validation=0.2, test=0.2),
        encoder=EncoderConfig(path="random", train="all", max_length=16),
        mlm=MlmConfig(tokens_per_step=128, item_share=1.0),
        contrastive=ContrastiveConfig(users_per_step=4, liked_per_user=4),
        held_out=0.2,
        steps=1,
        devices=1,
        seed=seed,
    )


@pytest.mark.slow
def test_pretraining_is_compared_with_the_untouched_encoder(tmp_path):
    train = dataclasses.replace(preset("synthetic").train, epochs=1, users_per_step=160, devices=1)
    few = FactorsConfig(rank=2)
    rows = pretraining.measure([small_pretraining(0)], tmp_path / "runs", train, few, objectives=("contrastive",))
    document = {"environment": environment(), "rows": [row.to_json() for row in rows]}
    wanted = {(f"{h}, {p} items", m) for h in pretraining.HEADS for p in frozen.PARTS for m in frozen.METRICS}
    assert {(row.case, row.metric) for row in rows if row.case != "held out of pretraining"} == wanted
    assert [row.metric for row in rows if row.case == "held out of pretraining"] == [
        "contrastive_users",
        "contrastive_items",
    ]
    for row in rows:
        if "difference" in row.facts:
            assert row.ours - row.theirs == pytest.approx(row.facts["difference"]["difference"], abs=1e-9)
    text = report.differences(json.loads(json.dumps(document)), ["ridge, cold items"])
    assert text.count("| ridge, cold items | contrastive |") == len(frozen.METRICS)
    # What was done is not done again.
    assert (tmp_path / "runs/0/contrastive/pretraining/encoder/model.safetensors").exists()


@pytest.mark.slow
def test_influences_are_compared_with_leaving_ratings_out():
    recommender = Recommender.load(trained_run())
    everyone = explain.test_users(recommender)
    assert len(everyone) == 20
    assert all(len(user.history) == 20 and len(user.rows) == explain.LIST for user in everyone)
    rows = explain.measure("tiny", recommender, everyone[:3], rounds=1)
    assert [row.metric for row in rows] == ["rank correlation"] + ["users/s"] * 4
    assert rows[0].ours > explain.BAR_OF_RANKS
    assert rows[0].facts["users"] == 3
    assert "| tiny, first 10 items of test users | leave one out | rank correlation |" in report.table(
        {"environment": environment(), "rows": [row.to_json() for row in rows]}
    )


@pytest.mark.slow
def test_privacy_is_compared_with_the_training_without_it(tmp_path):
    config = preset("synthetic")
    config = dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, hidden=4, user_side="none"),
        factors=dataclasses.replace(config.factors, rank=0),
        updater=dataclasses.replace(config.updater, steps=1, order="first"),
        train=dataclasses.replace(config.train, epochs=1, users_per_step=80, users_per_device=80, devices=1),
    )
    rows = of_privacy.measure([config], [20.0], tmp_path)
    cases = [of_privacy.NOTHING_ADDED, of_privacy.STARVED, "epsilon 20"]
    assert [(row.case, row.metric) for row in rows] == [(c, m) for c in cases for m in variants.METRICS]
    for row in rows:
        assert row.ours - row.theirs == pytest.approx(row.facts["difference"]["difference"], abs=1e-9)
    assert rows[-1].facts["privacy"]["epsilon_spent"] <= 20
    document = {"environment": environment(), "rows": [row.to_json() for row in rows]}
    assert report.costs(json.loads(json.dumps(document))).count("| epsilon 20 |") == len(variants.METRICS)


@pytest.mark.slow
def test_encoders_in_the_loop_are_compared_with_a_frozen_one(tmp_path):
    config = preset("synthetic")
    config = dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, hidden=4, user_side="none"),
        updater=dataclasses.replace(config.updater, steps=1, order="first"),
        train=dataclasses.replace(config.train, epochs=1, users_per_step=80, users_per_device=80, devices=1),
    )
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2))
    rows = joint_accuracy.measure([config], [longer], ["lora"], tmp_path)
    cases = dict.fromkeys(row.case for row in rows)
    assert list(cases) == [*joint_accuracy.BESIDE.values(), joint_accuracy.LONGER, "lora", "lora, before adapting"]
    found = {row.contender: row for row in rows if row.case == "lora" and row.metric == "rmse"}
    assert list(found) == [joint_accuracy.FROZEN, joint_accuracy.LONGER]
    assert found[joint_accuracy.FROZEN].ours != found[joint_accuracy.FROZEN].theirs  # the trained encoder reads
    again = joint_accuracy.measure([config], [longer], ["lora"], tmp_path)
    assert [row.ours for row in again] == [row.ours for row in rows]
    with pytest.raises(MetarecError, match="other options"):
        joint_accuracy.measure([longer], [longer], [], tmp_path)


def test_new_items_are_new_to_every_head():
    """No training user's rating of them is left, they are in no support, and the statistics of none is known."""
    config = small_pretraining(0)
    world = frozen.world_of(config)
    asked = frozen.questions(world, config.run)
    cold, train = world.seen.cold, world.seen.splits.train
    assert cold.sum() == 24
    assert not (cold[world.data.item] & np.isin(world.data.user, train)).any()
    assert (world.statistics.count[cold] == 0).all()
    for part, episodes in asked.items():
        support, query = (rows.item[rows.mask > 0] for rows in (episodes.support, episodes.query))
        assert not cold[support].any()
        assert (cold[query] == (part == "cold")).all()
        assert set(episodes.user) == set(world.seen.splits.validation)
    assert (asked["cold"].query.statistic == 0).all()
    assert (asked["warm"].query.statistic[asked["warm"].query.mask > 0][:, 1] > 0).mean() > 0.9
    both = [set(zip(*np.nonzero(asked[p].query.mask))) for p in frozen.PARTS]
    assert all(both)
    # A user's warm query and support share no item.
    warm = asked["warm"]
    for row in range(len(warm.user)):
        shown, wanted = (set(r.item[row][r.mask[row] > 0]) for r in (warm.support, warm.query))
        assert shown
        assert not shown & wanted


def test_the_ridge_reads_new_items_from_their_texts():
    """Where an item's rating is a line in its embedding, it is predicted of items that nobody rated."""
    config = small_pretraining(0)
    world = frozen.world_of(config)
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(world.seen.cold), 4)).astype(np.float32)
    truth = np.clip(3 + table @ np.array([1, -1, 0.5, 0]), 1, 5)
    data = dataclasses.replace(world.data, rating=truth[world.data.item].astype(np.float32))
    statistics = frozen.item_statistics(data, world.seen.splits.train)
    world = frozen.World(data, world.seen, statistics)
    asked = frozen.questions(world, config.run)
    _, (best,) = frozen.chosen([frozen.ridge(world, table, asked)], "cold")
    _, (blind,) = frozen.chosen([frozen.ridge(world, rng.normal(size=table.shape), asked)], "cold")
    error, without = (float(np.mean(v["mae"].values)) for v in (best, blind))
    assert error < 0.4 * without
    assert np.mean(best["auc"].values) > 0.9


# The encoder in the loop


def laid_out(rows: list[harness.Row]) -> list[tuple[str, str, str]]:
    """(case, contender, metric) of every row, after a look at what each must have."""
    for row in rows:
        assert {"case", "contender", "metric", "ours", "theirs", "ratio", "bar", "met"} <= set(row.to_json())
        assert min(row.ours, row.theirs, *row.ratio.values()) > 0
    return [(row.case, row.contender, row.metric) for row in rows]


def test_the_rival_of_the_catalogue_cuts_texts_where_we_do():
    from benchmarks.torch_reference import encoder as theirs

    encoder = load_encoder("random")
    encoder = dataclasses.replace(encoder, config=dataclasses.replace(encoder.config, dropout=0.0))
    texts = ["film " * 300, "a film", "film " * 300 + "more"]
    rival = theirs.sorted_batching(theirs.bert(encoder.config, encoder.params), encoder.tokenizer.backend, texts)
    ours = encode_table(encoder, texts)
    np.testing.assert_allclose(rival(), ours, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(ours[0], ours[2])
    assert encoder.tokenizer.backend.truncation is None


def test_the_encoder_is_compared_on_one_batch():
    rows = of_encoder.one_batch(SMOKE_SHAPE, rounds=2)
    assert laid_out(rows) == [
        ("forward, smoke", "transformers", "texts/s"),
        ("forward + backward, smoke", "transformers", "texts/s"),
    ]


@pytest.mark.slow
def test_packed_texts_are_compared_with_sorted_ones():
    rows = packed_texts.compare(2, name="random", smoke=True)
    cases = [
        f"{kind}, {texts}" for texts in ("item texts", "8 to 256 tokens") for kind in ("forward", "forward + backward")
    ]
    wanted = [(case, other, "texts/s") for case in cases for other in ("transformers, sorted", "products")]
    assert laid_out(rows) == wanted
    for row in rows:
        assert row.facts["tokens"] <= row.facts["computed tokens, ours"] <= 1.5 * row.facts["tokens"]


@pytest.mark.slow
def test_a_joint_step_is_compared_with_the_others():
    small = {"features": 64, "users": joint.PAIRS_OF, "support": 2, "query": 1, "hidden": 8, "steps": 1, "at_once": 0}
    case = dataclasses.replace(joint.JOINT, **small)
    rows = joint.compare(2, case, name="random", tokens_per_call=1 << 14)  # few lengths to compile
    assert [contender for _, contender, _ in laid_out(rows)] == [
        "(c) distinct",
        "(c) distinct, sorted",
        "pairs",
        "(a) textbook",
    ]
    assert 0 < rows[0].facts["distinct texts"] <= 3 * joint.PAIRS_OF
    users, items, labels = joint.textbook_pairs(case, task_of(case))
    data = load_data(DataConfig(), seed=0)
    rated = dict(zip(zip(data.user.tolist(), data.item.tolist()), data.rating.tolist()))
    assert [rated[pair] - 1 for pair in zip(users.tolist(), items.tolist())] == labels.tolist()
    # Chunks of texts count as often as there are any: at least a pass over every token and one back, which is twice as
    # much; and another pass where nothing is kept.
    facts, reached = rows[0].facts["phases"]["ours"], rows[0].facts["roofline"]["ours"]
    encoder = load_encoder("random")
    once = of_encoder.matrix_flops(encoder.params, rows[0].facts["tokens"])
    assert facts["gflop_of_products"] > 3 * once
    assert reached["gflop_per_s"] == pytest.approx(facts["gflop_of_products"] / reached["seconds"], rel=0.5)


def test_memory_of_a_joint_step_is_held_against_what_its_episodes_need():
    figures = {"temporaries_mb": 100.0, "of_episodes_mb": 1.0, "rss_mb": 1000.0}
    grown = {"temporaries_mb": 110.0, "of_episodes_mb": 16.0, "rss_mb": 1200.0}
    rows = joint_memory.compare({64: figures, 1024: grown})
    assert [metric for _, _, metric in laid_out(rows)] == ["temporaries_mb", "rss_mb"]
    assert [row.to_json()["met"] for row in rows] == [True, False]
    assert rows[0].theirs == pytest.approx(1.1 * 115)
