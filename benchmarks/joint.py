"""A joint meta-training step on real episodes: 256 users x 30 interactions of MovieLens-100K, MiniLM in the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks import harness, ours
from benchmarks.cases import SHARED, InnerLoopCase
from benchmarks.rivals import Task
from benchmarks.tasks import task_of
from metarec_jax.config import DataConfig
from metarec_jax.data import load as load_data
from metarec_jax.encoder import Encoder, Texts, encode, load, tokenize
from metarec_jax.meta.joint import Chosen, Reading, joint_gradient
from metarec_jax.meta.user import Trainable
from metarec_jax.progress import QUIET, Reporter

JOINT = dataclasses.replace(SHARED, name="joint", features=384)
PAIRS_OF = 16
"""Of so many users the pairs are encoded one by one; the time of all is reckoned from that."""
BARS = {"pairs": 10.0, "distinct": 2.0}
TOKENS_PER_CALL = 1024
TOLERANCE = 1e-3
"""Of gradients, relative to the largest: an inner loop makes more of the rounding of embeddings."""


class Step(NamedTuple):
    """A joint gradient: computes it once and waits for it; picking the texts is part of the work."""

    run: Callable[[], Any]
    compiled: Any


def our_step(task: Task, encoder: Encoder, texts: Texts, at_once: int) -> Step:
    """The package's own, compiled."""
    problem = ours.problem(task, "factored")
    used = np.concatenate([task.support_ids, task.query_ids], axis=1)
    trainable = jax.device_put(Trainable(problem.trainable.theta, problem.trainable.phi, encoder.params))
    buckets = jax.device_put(texts.buckets)
    reading = Reading(
        lambda params, tokens, key: encode(params, encoder.config, tokens, normalise=True), texts.per_call
    )
    support = task.support_ids.shape[1]

    def gradient(trainable: Trainable, chosen: Chosen, episodes: Any, users: Any) -> Any:
        return joint_gradient(
            problem.model,
            reading,
            lambda params: (params, jax.tree.map(lambda _: None, params)),
            trainable,
            chosen._replace(users=users),
            episodes,
            at_once=at_once,
        )

    def feed() -> tuple[Chosen, Any]:
        picked, slots = texts.pick(used, np.ones(used.shape, bool), len(texts.row_of))
        episodes = problem.episodes._replace(
            support=problem.episodes.support._replace(item=slots[:, :support]),
            query=problem.episodes.query._replace(item=slots[:, support:]),
        )
        return jax.device_put((Chosen(buckets, picked), episodes))

    users = problem.tables.users
    compiled = jax.jit(gradient).lower(trainable, *feed(), users).compile()
    return Step(lambda: jax.block_until_ready(compiled(trainable, *feed(), users)), compiled)


def compare(rounds: int, case: InnerLoopCase = JOINT, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Users per second of a whole gradient by learner, rates and encoder."""
    from benchmarks.torch_reference import encoder as their_encoder
    from benchmarks.torch_reference import joint as theirs

    encoder = load("minilm")
    ids = tokenize(encoder.tokenizer, load_data(DataConfig(), seed=0).items.texts, 128).ids
    task = task_of(case)
    texts = Texts.of(ids, limit=128, tokens_per_call=TOKENS_PER_CALL)
    mine = our_step(task, encoder, texts, case.at_once)
    gradient, losses = mine.run()
    model = their_encoder.bert(encoder.config, encoder.params)
    both = np.concatenate([task.support_ids, task.query_ids], axis=1)
    rows, place = np.unique(both, return_inverse=True)
    place = place.reshape(both.shape)
    support = task.support_ids.shape[1]
    distinct = theirs.step(
        model,
        dataclasses.replace(task, support_ids=place[:, :support], query_ids=place[:, support:]),
        [ids[row] for row in rows],
    )
    found, kernel = distinct()
    _agree(float(losses.query / losses.rows), found.loss)
    _agree(np.asarray(gradient.encoder["layer_0"]["query"]["kernel"]).T, kernel.numpy())
    _agree(np.asarray(gradient.theta["hidden"]["kernel"]), found.theta["hidden"]["kernel"])
    few = both[:PAIRS_OF]
    alone = np.arange(few.size).reshape(few.shape)
    pairs = theirs.step(
        model,
        dataclasses.replace(
            task,
            support_ids=alone[:, :support],
            query_ids=alone[:, support:],
            support_labels=task.support_labels[:PAIRS_OF],
            query_labels=task.query_labels[:PAIRS_OF],
        ),
        [ids[row] for row in few.ravel()],
    )
    contenders = [
        harness.Contender(n, run) for n, run in (("ours", mine.run), ("distinct", distinct), ("pairs", pairs))
    ]
    seconds = harness.take_turns(contenders, rounds=rounds, warmup=1, reporter=reporter, label=case.name)
    seconds["pairs"] = seconds["pairs"] * task.users / PAIRS_OF
    facts = {
        "shape": dataclasses.asdict(case),
        "distinct texts": len(rows),
        "tokens": int(sum(len(ids[row]) for row in rows)),
        "padded tokens, ours": int(sum(b.ids.size for b in texts.buckets)),
        "padded tokens, distinct": len(rows) * max(len(ids[row]) for row in rows),
        "pairs": f"measured on {PAIRS_OF} users, multiplied by {task.users // PAIRS_OF}",
    }
    return harness.compare(case.name, seconds, ours="ours", work=task.users, metric="users/s", bars=BARS, facts=facts)


def _agree(found: Any, wanted: Any) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not error < TOLERANCE:
        raise SystemExit(f"joint: ours and PyTorch's gradients disagree: relative error {error:.1e}")
