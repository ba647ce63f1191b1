"""`metarec bench`: how fast this machine computes what the package is made of, and what bounds it, in plain words.

Three pieces of work (a meta-training step with a frozen encoder, the encoder itself, adapting to a thousand users and
ranking) are timed in turns with the machine's limits (`metarec_jax.cli.hardware_limits`). Inputs are drawn; neither
data nor weights are needed. The suite that compares with other packages is ``python -m benchmarks``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
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
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Items, Rows, Tables
from metarec_jax.encoder import BertConfig, Tokens, encode
from metarec_jax.encoder import init as init_encoder
from metarec_jax.meta.outer import TrainState, make_step
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train.catalogue import Catalogue, Scale, Statistics
from metarec_jax.train.model import init_trainable, make_model

HALF = 0.5
"""Share of the time from which on a limit is what bounds the work."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """How large everything is."""

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
    """Something to time.

    Attributes:
        name: what people call it.
        unit, amount: what it does so much of in one call.
        run: does it once, and waits.
        gflop: of its matrix products; 0 where they were not counted.
        gigabytes: what it has to read and write at least: arguments and results, once.
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
    """Times everything, in turns.

    Returns:
        ``limits``: GFLOP/s of matrix products, and GB/s of the quickest way through memory; ``work``: for each piece
        its name, unit, what it does a second (median, and the range of the middle 90 % of turns), seconds of a call
        and of compiling, shares of the time that its products at the peak, and its bytes at the bandwidth, would take,
        and a ``verdict``.
    """
    limits = _limits(shape)
    product, *ways = limits
    works = []
    for make in (outer_step, encoding, ranking):
        reporter.note(f"compiling: {(make.__doc__ or '').split(':')[0].rstrip('.').lower()}")
        works.append(make(shape))
    everything = [*limits, *works]
    taken: dict[str, list[float]] = {work.name: [] for work in everything}
    with reporter.bar("taking turns", rounds) as advance:
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
        "work": [_told(work, np.array(taken[work.name]), peak, bandwidth) for work in works],
    }


def _told(work: Work, taken: np.ndarray, peak: float, bandwidth: float) -> dict[str, Any]:
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
    """What bounds a piece of work, as a sentence.

    Args:
        arithmetic: share of its time that its matrix products would take at the machine's peak.
        memory: share that reading its arguments and writing its results once would take.

    >>> verdict(0.8, 0.1)
    'bound by arithmetic: its matrix products alone, at the speed of a large one, take 80 % of the time'
    """
    if max(arithmetic, memory) < HALF:
        return (
            f"bound by neither limit: large products would take {arithmetic:.0%} of the time and memory {memory:.0%}; "
            "the rest goes to products too small to run at that speed, to passes over what lies between them, and to "
            "starting operations: more users at once, or a larger network, would use the machine better"
        ).replace("%", " %")
    if arithmetic >= memory:
        share = f"{arithmetic:.0%}".replace("%", " %")
        return f"bound by arithmetic: its matrix products alone, at the speed of a large one, take {share} of the time"
    share = f"{memory:.0%}".replace("%", " %")
    return f"bound by memory: reading what it needs once, as fast as memory allows, takes {share} of the time"


def _limits(shape: Shape) -> list[Work]:
    """A large matrix product, and ways through memory."""
    large, ways = product_limit(shape.product), memory_limits(shape.megabytes)
    return [
        Work("product", "GFLOP", large.work, large.run),
        *(Work(name, "GB", way.work, way.run) for name, way in ways.items()),
    ]


def _drawn(shape: Shape) -> tuple[Config, Catalogue, Any]:
    """A config, a catalogue and parameters, all drawn."""
    rng = np.random.default_rng(0)
    config = Config(
        learner=LearnerConfig(hidden=shape.hidden, user_side="none", head="ordinal"),
        episodes=EpisodeConfig(
            buckets=(shape.support,),
            max_support=shape.support,
            query=shape.query,
            min_ratings=shape.support + shape.query,
        ),
    )
    scale = Scale("rating", (1.0, 2.0, 3.0, 4.0, 5.0), 1.0, 5.0)
    names = tuple(map(str, range(shape.items)))
    count = np.full(shape.items, 5.0, np.float32)
    table = rng.standard_normal((shape.items, shape.features), np.float32)
    items = Items(ids=names, titles=names, texts=("",) * shape.items)
    catalogue = Catalogue(items, Statistics(3 * count, count), table, scale)
    model = make_model(config, scale)
    trainable = init_trainable(config, model, catalogue, np.zeros((1, 0), np.float32), jax.random.key(0))
    return config, catalogue, jax.device_get(trainable)


def outer_step(shape: Shape) -> Work:
    """A meta-training step: second-order inner loops of many users, their gradient, AdamW; the encoder is frozen."""
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
    """The encoder, forward: texts of 32 tokens."""
    width = max(shape.features // 64, 1)
    config = BertConfig(
        vocab_size=1000,
        hidden_size=shape.features,
        num_layers=shape.layers,
        num_heads=2 * width,
        intermediate_size=4 * shape.features,
        has_pooler=False,
    )
    params = init_encoder(jax.random.key(0), config)
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
    """The compiled program, and seconds of tracing and compiling it."""
    started = time.perf_counter()
    with compiled_anew():
        compiled = jax.jit(function).lower(*arguments).compile()
    return compiled, time.perf_counter() - started


def ranking(shape: Shape) -> Work:
    """Adapting and ranking: from the ratings of many users to the ten best items for each."""
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
    rank_one = 2e-9 * shape.items * shape.hidden * (shape.support + 5)  # factors and outputs; the rest is shared
    return Work(
        f"adapt to {shape.asked:,} users and rank {shape.items:,} items",
        "users",
        shape.asked,
        run,
        gflop=shape.asked * rank_one,
        gigabytes=_bytes(catalogue.embeddings, drawn),
        compile_s=compile_s,
    )


def products(function: Callable[..., Any], *arguments: Any) -> float:
    """GFLOP of all matrix products of a function of these arguments, with every turn of every counted loop."""
    return products_of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr) / 1e9


def products_of_jaxpr(jaxpr: Any, turns: Callable[[str], int | None] = lambda path: None) -> float:
    """FLOP of all matrix products of a jaxpr. Of branches, one of which runs, the one with the most counts.

    Args:
        jaxpr: of the function.
        turns: scopes of a loop whose length only the data knows -> its turns; where it is None, it counts once.
    """
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * np.prod([left[i] for i in contracted]) * np.prod(equation.outvars[0].aval.shape)
        times = 1
        if equation.primitive.name == "scan":
            times = equation.params["length"]
        elif equation.primitive.name == "while":
            times = turns(str(equation.source_info.name_stack)) or 1
        inside = [products_of_jaxpr(inner, turns) for inner in _called_by(equation)]
        total += max(inside) if equation.primitive.name == "cond" else times * sum(inside)
    return total


def _called_by(equation: Any) -> Iterator[Any]:
    for value in equation.params.values():
        for inner in value if isinstance(value, tuple | list) else [value]:
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield inner


def _bytes(*trees: Any) -> float:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(trees) if hasattr(leaf, "nbytes")) / 1e9


def show(found: Mapping[str, Any]) -> None:
    """Prints what `measure` found."""
    from metarec_jax.core.console import print_grid

    limits = found["limits"]
    print(
        f"This machine: {limits['gflop_per_s']:,.0f} GFLOP/s in a large matrix product (float32), "
        f"{limits['gb_per_s']:,.1f} GB/s through memory.\n"
    )
    rows = [
        [
            work["name"],
            f"{work['median']:,.0f} {work['unit']}",
            f"{work['low']:,.0f} to {work['high']:,.0f}",
            f"{work['seconds'] * 1e3:,.1f}",
            f"{work['compile_s']:.1f}",
        ]
        for work in found["work"]
    ]
    header = ["work", "speed", "middle 90 %", "ms a call", "first call, s"]
    print_grid("How fast (medians of turns)", header, rows, numbers=[1, 2, 3, 4])
    print("What bounds it\n")
    for work in found["work"]:
        print(f"- {work['name']}: {work['verdict']}.")
