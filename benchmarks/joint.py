"""A joint meta-training step on real episodes: 256 users x 30 interactions of MovieLens-100K, MiniLM in the loop."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import harness, ours, roofline
from benchmarks.cases import SHARED, InnerLoopCase
from benchmarks.phases import first, phases
from benchmarks.rivals import Task
from benchmarks.tasks import movielens, task_of, users_of
from metarec_jax.core.device_memory import free_memory
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Params
from metarec_jax.encoder import Encoder, TextRows, Texts, choose_execution, encode, load, pack, tokenize
from metarec_jax.encoder.execution import EXECUTION
from metarec_jax.meta.encoder_step import joint_gradient
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.text_passes import Chosen, Reading, fitting_memory
from metarec_jax.train.aot.hlo import Turns

JOINT = dataclasses.replace(SHARED, name="joint", features=384)
PAIRS_OF = 16
"""Number of users whose pairs are encoded one by one; the time of all users is extrapolated."""
BARS = {"(a) textbook": 10.0, "pairs": 10.0, "(c) distinct": 1.5, "(c) distinct, sorted": 1.0}
RATE = 2e-5
"""Learning rate of Adam, in every contender."""
TEXTBOOK_PAIRS = 64
"""Pairs of a step of the textbook model; the time of all pairs is extrapolated."""
SORTED = 32
"""Texts of a batch of PyTorch's that are sorted by length."""
TOKENS_PER_CALL = choose_execution("cpu").tokens_per_call
TOLERANCE = 1e-3
"""Largest error of gradients, relative to the largest: an inner loop amplifies the rounding of embeddings."""


class Step(NamedTuple):
    """A compiled joint gradient.

    Attributes:
        run: computes it once and waits for it; selecting the texts is part of the work.
        compiled: the program.
        facts: facts of the program.
    """

    run: Callable[[], Any]
    compiled: Any
    facts: dict[str, float]


def our_step(task: Task, encoder: Encoder, texts: Texts, at_once: int, *, adam: bool = False, **how: Any) -> Step:
    """Compile the package's own joint gradient.

    Args:
        task: the batch.
        encoder: the encoder.
        texts: texts of the items.
        at_once: users of a micro-batch; 0 for all.
        adam: whether the program moves a state of its own, and gives the losses only.
        **how: options of `encode`.
    """
    problem = ours.problem(task, "factored")
    used = np.concatenate([task.support_ids, task.query_ids], axis=1)
    trainable = jax.device_put(Trainable(problem.trainable.theta, problem.trainable.phi, encoder.params))
    options: dict[str, Any] = {"normalise": True, **how}
    most = texts.slots(len(texts.text_of))
    reading = Reading(
        lambda params, tokens: encode(params, encoder.config, tokens, **options),
        texts.plan.per_call,
        most,
        remat=options.get("run", EXECUTION).remat,
    )
    support = task.support_ids.shape[1]

    def gradient(trainable: Trainable, chosen: Chosen, episodes: Any, users: Any, kept: Any = None) -> Any:
        return joint_gradient(
            problem.model,
            reading,
            _all_trained,
            trainable,
            chosen._replace(users=users),
            episodes,
            kept=kept,
            at_once=at_once,
        )

    def feed() -> tuple[Chosen, Any]:
        rows, slots = texts.pick(used, np.ones(used.shape, bool), most)
        episodes = problem.episodes._replace(
            support=problem.episodes.support._replace(item=slots[:, :support]),
            query=problem.episodes.query._replace(item=slots[:, support:]),
        )
        return jax.device_put((Chosen(rows), episodes))

    users, fed = problem.tables.users, feed()
    turns = turns_of(texts, fed[0].rows)
    if adam:
        optimiser = optax.adam(RATE)

        def move(held: Any, chosen: Chosen, episodes: Any, users: Any) -> Any:
            slope, losses, kept = gradient(held[0], chosen, episodes, users, held[2])
            updates, state = optimiser.update(slope, held[1], held[0])
            return (optax.apply_updates(held[0], updates), state, kept), losses

        own = jax.tree.map(jnp.copy, trainable)
        shapes = fitting_memory(reading, _all_trained, own.encoder, fed[0], free_memory(jax.local_devices()[0]))
        memory = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        held = [(own, optimiser.init(own), memory)]
        compiled, facts = phases(move, held[0], *fed, users, turns=turns, donate_argnums=0)

        def run() -> Any:
            held[0], losses = compiled(held[0], *feed(), users)
            return jax.block_until_ready(losses)

        return Step(run, compiled, facts)
    compiled, facts = phases(gradient, trainable, *fed, users, turns=turns)
    return Step(lambda: jax.block_until_ready(compiled(trainable, *feed(), users)), compiled, facts)


def _all_trained(params: Params) -> tuple[Params, Params]:
    return params, jax.tree.map(lambda _: None, params)


def real_texts(
    name: str = "minilm", tokens_per_call: int = TOKENS_PER_CALL
) -> tuple[Encoder, Sequence[np.ndarray], Texts]:
    """Load an encoder, and tokenise the item texts of MovieLens-100K.

    Args:
        name: name of the encoder, or its folder.
        tokens_per_call: tokens that are encoded at a time.

    Returns:
        The encoder; token ids of each text; the texts.
    """
    encoder = load(name)
    ids = tokenize(encoder.tokenizer, movielens().items.texts, 128).ids
    return encoder, ids, Texts.of(ids, tokens_per_call=tokens_per_call, width=encoder.config.hidden_size)


def turns_of(texts: Texts, rows: Sequence[TextRows]) -> Turns:
    """Make the function path -> iterations of a loop over chunks, which the name scope of its length identifies.

    Args:
        texts: texts of the items.
        rows: the rows of a step.

    Returns:
        The function; None for other loops.
    """
    chunks = {part.ids.shape[1]: -(-int(part.count) // per_call) for part, per_call in zip(rows, texts.plan.per_call)}

    def turns(path: str) -> int | None:
        length = re.search(r"length_(\d+)", path)
        return chunks[int(length[1])] if length else None

    return turns


def computed_tokens(texts: Texts, used: np.ndarray) -> int:
    """Tokens that a step computes for a batch, padding and empty rows of the last chunks included.

    Args:
        texts: texts of the items.
        used: rows of the batch's texts.
    """
    rows, _ = texts.pick(used, np.ones(used.shape, bool), used.size)
    turns = [-(-int(part.count) // per_call) for part, per_call in zip(rows, texts.plan.per_call)]
    return sum(n * per_call * length for n, per_call, length in zip(turns, texts.plan.per_call, texts.plan.lengths))


def compare(
    rounds: int,
    case: InnerLoopCase = JOINT,
    reporter: Reporter = QUIET,
    *,
    name: str = "minilm",
    tokens_per_call: int = TOKENS_PER_CALL,
) -> list[harness.Row]:
    """Users per second of a whole step that trains the learner, the rates and the encoder.

    Args:
        rounds: turns of each contender.
        case: the sizes; its features are the encoder's hidden size.
        reporter: shows progress.
        name: name of the encoder, or its folder.
        tokens_per_call: tokens that are encoded at a time.
    """
    from benchmarks.torch_reference import encoder as their_encoder
    from benchmarks.torch_reference import joint as theirs

    encoder, ids, texts = real_texts(name, tokens_per_call)
    task = task_of(case)
    mine = our_step(task, encoder, texts, case.at_once)
    gradient, losses, _ = mine.run()
    model = their_encoder.bert(encoder.config, encoder.params)
    both = np.concatenate([task.support_ids, task.query_ids], axis=1)
    rows, place = np.unique(both, return_inverse=True)
    place = place.reshape(both.shape)
    support = task.support_ids.shape[1]
    of_rows = dataclasses.replace(task, support_ids=place[:, :support], query_ids=place[:, support:])
    distinct_texts = [ids[row] for row in rows]
    distinct = theirs.step(model, of_rows, distinct_texts)
    found, kernel = distinct()
    _agree(float(losses.query / losses.rows), found.loss)
    _agree(np.asarray(gradient.encoder["layer_0"]["query"]["kernel"]).T, kernel.numpy())
    _agree(np.asarray(gradient.theta["hidden"]["kernel"]), found.theta["hidden"]["kernel"])
    by_length = theirs.step(model, of_rows, distinct_texts, SORTED)
    _agree(by_length()[0].loss, found.loss)
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
    book = _textbook(encoder, ids, case, task)
    # Gradients agree: now each with an optimiser, so that whole steps are timed.
    moving = our_step(task, encoder, texts, case.at_once, adam=True)
    moving.facts["first_s"] = first(moving.run)
    contenders: dict[str, Callable[[], Any]] = {
        "ours": moving.run,
        "(c) distinct": theirs.with_adam(model, distinct, RATE),
        "(c) distinct, sorted": theirs.with_adam(model, by_length, RATE),
        "pairs": pairs,
        "(a) textbook": book,
    }
    left_out = {}
    if case == JOINT:  # compiling takes minutes
        try:
            faster = theirs.step(theirs.compiled(model), of_rows, distinct_texts)
            _agree(faster()[0].loss, float(losses.query / losses.rows))
            contenders["(d) distinct, compiled"] = theirs.with_adam(model, faster, RATE)
        except RuntimeError as error:  # of torch.compile: no compiler of C++, say
            left_out["(d) distinct, compiled"] = str(error)
    machine = roofline.Machine(small=case != JOINT)
    turns = [*(harness.Contender(name, run) for name, run in contenders.items()), *machine.contenders()]
    seconds = harness.take_turns(turns, rounds=rounds, warmup=1, reporter=reporter, label=case.name)
    best = machine.best(seconds)
    seconds["pairs"] = seconds["pairs"] * task.users / PAIRS_OF
    seconds["(a) textbook"] = seconds["(a) textbook"] * both.size / min(TEXTBOOK_PAIRS, both.size)
    facts: dict[str, Any] = {
        "shape": dataclasses.asdict(case),
        "phases": {"ours": moving.facts},
        "roofline": {"ours": best.reached(moving.facts, seconds["ours"])},
        "unavailable": left_out,
        "distinct texts": len(rows),
        "tokens": int(sum(len(ids[row]) for row in rows)),
        "padded tokens, ours": computed_tokens(texts, both),
        "padded tokens, distinct": len(rows) * max(len(ids[row]) for row in rows),
        "pairs": f"without an optimiser, measured on {PAIRS_OF} users, multiplied by {task.users // PAIRS_OF}",
        "(a) textbook": f"measured on {min(TEXTBOOK_PAIRS, both.size)} of {both.size} pairs; user texts, no inner loop",
    }
    return harness.compare(case.name, seconds, ours="ours", work=task.users, metric="users/s", bars=BARS, facts=facts)


def textbook_pairs(case: InnerLoopCase, task: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some pairs of the batch: rows of their users and of their items, and their labels."""
    users = np.repeat(users_of(case), case.support + case.query)
    items, labels = (
        np.concatenate(parts, axis=1).ravel()
        for parts in ((task.support_ids, task.query_ids), (task.support_labels, task.query_labels))
    )
    chosen = np.random.default_rng(0).permutation(len(items))[:TEXTBOOK_PAIRS]
    return users[chosen], items[chosen], labels[chosen]


def _textbook(encoder: Encoder, ids: Any, case: InnerLoopCase, task: Task) -> Callable[[], float]:
    """Level (a) on some pairs of the batch: the user's profile, the item's text, and the rating.

    Its loss is compared with one from JAX's encoder and numpy.
    """
    from benchmarks.torch_reference import encoder as their_encoder
    from benchmarks.torch_reference import textbook

    rng = np.random.default_rng(0)
    users, items, labels = textbook_pairs(case, task)
    profiles = movielens().users.texts
    assert profiles is not None  # MovieLens-100K has them
    of_users = tokenize(encoder.tokenizer, [profiles[user] for user in users], 128).ids
    of_items = [ids[item] for item in items]
    width, hidden = encoder.config.hidden_size, 128

    def drawn(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)

    head = {
        "hidden": drawn(2 * width, hidden),
        "hidden_bias": np.zeros(hidden, np.float32),
        "output": drawn(hidden, 5),
        "output_bias": np.zeros(5, np.float32),
    }
    read = jax.jit(lambda tokens: encode(encoder.params, encoder.config, tokens, normalise=True))
    vectors = [np.asarray(read(pack(texts, max(map(len, texts))))) for texts in (list(of_users), of_items)]
    logits = np.maximum(np.concatenate(vectors, axis=1) @ head["hidden"], 0) @ head["output"]
    wanted = float(np.mean(-np.asarray(jax.nn.log_softmax(logits))[np.arange(len(labels)), labels]))
    run = textbook.step(their_encoder.bert(encoder.config, encoder.params), head, of_users, of_items, labels)
    _agree(run(), wanted)
    return run


def _agree(found: Any, wanted: Any) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not error < TOLERANCE:
        raise SystemExit(f"joint: ours and PyTorch's gradients disagree: relative error {error:.1e}")
