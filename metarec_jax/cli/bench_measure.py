"""Time three pieces of work, in turns with the limits of the machine.

The work is a meta-training step with a frozen encoder, the encoder itself, and adapting to a thousand users and
ranking. All inputs are random; neither data nor weights are needed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metarec_jax.cli.hardware_limits import memory as memory_limits
from metarec_jax.cli.hardware_limits import product as product_limit
from metarec_jax.config.data import EpisodeConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.core.compile_cache import compiled_anew
from metarec_jax.core.flops import products
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Episodes, Items, Rows, Tables
from metarec_jax.encoder import BertConfig, Tokens, encode
from metarec_jax.encoder import init as init_encoder
from metarec_jax.meta.outer import TrainState, make_step
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train.catalogue import Catalogue, Statistics
from metarec_jax.train.model import init_trainable, make_model

HALF = 0.5
"""A limit bounds a workload if it accounts for at least this share of its time."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the work.

    Attributes:
        users, support, query: users of a meta-training step, and their support and query rows.
        items: number of items of the catalogue.
        features: width of an embedding, and of the encoder.
        hidden: width of the learner.
        at_once: users whose gradients are computed together.
        asked: users who are adapted to and ranked for.
        texts, layers: texts of a call of the encoder, and its layers.
        product: rows of the square matrices whose product is timed.
        megabytes: size of the arrays that memory bandwidth is measured with.
    """

    users: int = 256
    support: int = 20
    query: int = 10
    items: int = 1682
    features: int = 384
    hidden: int = 128
    at_once: int = 32
    asked: int = 1000
    texts: int = 64
    layers: int = 6
    product: int = 2048
    megabytes: int = 256


SMALL = Shape(
    users=4, support=3, query=2, items=20, features=24, hidden=4, at_once=2, asked=3, texts=2, layers=1, product=64,
    megabytes=1,
)  # fmt: skip
"""For tests."""


class Work(NamedTuple):
    """A workload to time.

    Attributes:
        name: title in tables.
        unit, amount: unit and amount of the work in one call.
        run: executes it once, and blocks until it is done.
        gflop: billions of floating-point operations of its matrix products; 0 where they were not counted.
        gigabytes: size of arguments and results, the least that a call reads and writes.
        compile_s: seconds of tracing and compiling.
    """

    name: str
    unit: str
    amount: float
    run: Callable[[], Any]
    gflop: float = 0.0
    gigabytes: float = 0.0
    compile_s: float = 0.0


def measure(shape: Shape = Shape(), rounds: int = 7, reporter: Reporter = QUIET) -> dict[str, Any]:
    """Build the work and time it.

    Args:
        shape: sizes of the work.
        rounds: repetitions of every measurement.
        reporter: where progress is shown.

    Returns:
        As `compare_with_limits`.
    """
    product = product_limit(shape.product)
    ways = [Work(name, "GB", way.work, way.run) for name, way in memory_limits(shape.megabytes).items()]
    works = []
    for title, make in (("meta-training step", outer_step), ("encoder", encoding), ("ranking", ranking)):
        reporter.note(f"compiling: {title}")
        works.append(make(shape))
    return compare_with_limits(Work("product", "GFLOP", product.work, product.run), ways, works, rounds, reporter)


def compare_with_limits(
    product: Work, ways: Sequence[Work], works: Sequence[Work], rounds: int, reporter: Reporter = QUIET
) -> dict[str, Any]:
    """Time everything in turns, and find the limit that bounds each workload.

    Args:
        product: a large matrix product, in GFLOP.
        ways: passes through memory, in GB; the fastest of them is taken as the memory bandwidth.
        works: workloads to compare with these limits.
        rounds: repetitions of every measurement.
        reporter: where progress is shown.

    Returns:
        ``limits``: GFLOP/s of the product, and GB/s of memory. ``work``: for each piece its name, unit, amount per
        second (median, and the range of the middle 90 % of the rounds), seconds of a call and of compiling, the shares
        of its time that its matrix products at the first limit and its bytes at the second would take, and a
        ``verdict``.
    """
    everything = [product, *ways, *works]
    taken: dict[str, list[float]] = {work.name: [] for work in everything}
    with reporter.bar("measuring", rounds) as advance:
        for work in everything:
            work.run()
        for turn in range(rounds):
            for work in everything:
                started = time.perf_counter()
                work.run()
                taken[work.name].append(time.perf_counter() - started)
            advance(turn + 1)
    seconds = {name: float(np.median(turns)) for name, turns in taken.items()}
    peak = product.amount / seconds[product.name]
    bandwidth = max(way.amount / seconds[way.name] for way in ways)
    return {
        "limits": {"gflop_per_s": peak, "gb_per_s": bandwidth},
        "work": [_result(work, np.array(taken[work.name]), peak, bandwidth) for work in works],
    }


def _result(work: Work, taken: np.ndarray, peak: float, bandwidth: float) -> dict[str, Any]:
    seconds = float(np.median(taken))
    low, high = (float(work.amount / q) for q in np.quantile(taken, [0.95, 0.05]))
    arithmetic, memory = work.gflop / peak / seconds, work.gigabytes / bandwidth / seconds
    return {
        "name": work.name,
        "unit": f"{work.unit}/s",
        "median": work.amount / seconds,
        "low": low,
        "high": high,
        "seconds": seconds,
        "compile_s": work.compile_s,
        "share_of_products": arithmetic,
        "share_of_memory": memory,
        "verdict": verdict(arithmetic, memory),
    }


def verdict(arithmetic: float, memory: float) -> str:
    """State which limit bounds a workload.

    Args:
        arithmetic: share of its time that its matrix products would take at the machine's peak.
        memory: share that reading its arguments and writing its results once would take.

    Returns:
        The sentence.

    >>> verdict(0.8, 0.1)
    'bound by arithmetic: its matrix products, at the speed of a large one, take 80 % of the time'
    """

    def percent(share: float) -> str:
        return f"{100 * share:.0f} %"

    if max(arithmetic, memory) < HALF:
        return (
            f"bound by neither limit: large matrix products would take {percent(arithmetic)} of the time and memory "
            f"{percent(memory)}; the rest is spent on matrix products too small for that speed, on reading and writing "
            "intermediate results, and on starting operations: larger batches or a larger network would use the "
            "machine better"
        )
    if arithmetic >= memory:
        share = percent(arithmetic)
        return f"bound by arithmetic: its matrix products, at the speed of a large one, take {share} of the time"
    return f"bound by memory: reading arguments and writing results once takes {percent(memory)} of the time"


def _drawn(shape: Shape) -> tuple[Config, Catalogue, Any]:
    """A config, a catalogue and parameters with random values."""
    rng = np.random.default_rng(0)
    config = Config(
        learner=LearnerConfig(hidden=shape.hidden, user_side="none", head="ordinal"),
        episodes=EpisodeConfig(
            buckets=(shape.support,),
            query=shape.query,
            min_ratings=shape.support + shape.query,
        ),
    )
    names = tuple(map(str, range(shape.items)))
    count = np.full(shape.items, 5.0, np.float32)
    table = rng.standard_normal((shape.items, shape.features), np.float32)
    items = Items(ids=names, titles=names, texts=("",) * shape.items)
    catalogue = Catalogue(items, Statistics(3 * count, count), table, STARS)
    model = make_model(config, STARS)
    trainable = init_trainable(config, model, catalogue, np.zeros((1, 0), np.float32), jax.random.key(0))
    return config, catalogue, jax.device_get(trainable)


def outer_step(shape: Shape) -> Work:
    """A meta-training step with a frozen encoder: second-order inner loops of many users, their gradient, AdamW."""
    config, catalogue, drawn = _drawn(shape)
    rng = np.random.default_rng(1)
    model = make_model(config, catalogue.scale)

    def rows(count: int) -> Rows:
        ids = rng.integers(0, shape.items, (shape.users, count)).astype(np.int32)
        ones = np.ones(ids.shape, np.float32)
        return Rows(
            ids, rng.integers(1, 6, ids.shape).astype(np.float32), ones, np.full((*ids.shape, 2), 5, np.float32)
        )

    ones = np.ones(shape.users, np.float32)
    episodes = Episodes(np.zeros(shape.users, np.int32), rows(shape.support), rows(shape.query), ones)
    tables = model.prepare(drawn.theta, Tables(catalogue.embeddings, np.zeros((1, 0), np.float32)))
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(3e-3))
    trainable, tables, episodes = jax.device_put((drawn, tables, episodes))
    state = TrainState(trainable, optimiser.init(trainable), jnp.zeros((), jnp.int32), jax.random.key(0))
    step = make_step(model, optimiser, at_once=shape.at_once)
    compiled, compile_s = _compiled(step, state, tables, episodes)
    return Work(
        f"meta-training step, {shape.users} users",
        "users",
        shape.users,
        lambda: jax.block_until_ready(compiled(state, tables, episodes)),
        gflop=products(step, state, tables, episodes),
        gigabytes=_bytes(state, state, tables, episodes),
        compile_s=compile_s,
    )


def encoding(shape: Shape) -> Work:
    """A forward pass of the encoder over texts of 32 tokens."""
    width = max(shape.features // 64, 1)
    config = BertConfig(
        vocab_size=1000,
        hidden_size=shape.features,
        num_layers=shape.layers,
        num_heads=2 * width,
        intermediate_size=4 * shape.features,
        has_pooler=False,
    )
    params = init_encoder(0, config)
    ids = np.random.default_rng(0).integers(0, 1000, (shape.texts, 32)).astype(np.int32)
    tokens = jax.device_put(Tokens(ids, np.ones(ids.shape, np.float32), np.zeros_like(ids)))

    def forward(params: Any, tokens: Tokens) -> jax.Array:
        return encode(params, config, tokens, normalise=True)

    compiled, compile_s = _compiled(forward, params, tokens)
    return Work(
        f"encoder of width {shape.features}, {shape.texts} texts of 32 tokens",
        "texts",
        shape.texts,
        lambda: jax.block_until_ready(compiled(params, tokens)),
        gflop=products(forward, params, tokens),
        gigabytes=_bytes(params, tokens),
        compile_s=compile_s,
    )


def _compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Compile a function; returns the program, and the seconds of tracing and compiling."""
    started = time.perf_counter()
    with compiled_anew():
        compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - started


def ranking(shape: Shape) -> Work:
    """Adaptation to many users, and ranking of the ten best items for each."""
    config, catalogue, drawn = _drawn(shape)
    rng = np.random.default_rng(2)
    recommender = Recommender(config, catalogue, drawn)
    chosen = [rng.permutation(shape.items)[: shape.support].tolist() for _ in range(shape.asked)]
    histories = [dict(zip(items, rng.integers(1, 6, len(items)).tolist())) for items in chosen]

    def run() -> Any:
        return recommender.recommend_many(recommender.adapt_many(histories), min(10, shape.items))

    started = time.perf_counter()
    with compiled_anew():
        run()
    compile_s = time.perf_counter() - started
    per_user = 2e-9 * shape.items * shape.hidden * (shape.support + 5)  # without products shared by all users
    return Work(
        f"adapt to {shape.asked:,} users and rank {shape.items:,} items",
        "users",
        shape.asked,
        run,
        gflop=shape.asked * per_user,
        gigabytes=_bytes(catalogue.embeddings, drawn),
        compile_s=compile_s,
    )


def _bytes(*trees: Any) -> float:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(trees) if hasattr(leaf, "nbytes")) / 1e9
