"""The encoder against transformers' PyTorch model: one batch, real texts, a whole catalogue, and a joint step.

python -m benchmarks.encoder [NAME ...] --json OUT

These are cases of the suite (`benchmarks.suite`), with its options, and OUT is a results file of the suite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, roofline
from benchmarks.phases import Watched, first, phases, together
from metarec_jax.config.data import DataConfig
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Params
from metarec_jax.data import load as load_data
from metarec_jax.encoder import BertConfig, Tokens, chunks, encode, encode_table, init, load, tokenize

BARS = {"forward": 1.0, "forward + backward": 1.0, "catalogue": 2.0}
OF_PEAK = 0.7
CATALOGUE = 100_000
"""Texts of the catalogue."""
FEW = 8
"""Texts, where everything is small."""
TOLERANCE = 2e-5
"""Of embeddings (of length 1), and of gradients relative to the largest."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """An architecture and a batch of it."""

    name: str
    hidden: int
    layers: int
    heads: int
    texts: int
    length: int

    @property
    def config(self) -> BertConfig:
        return BertConfig(
            vocab_size=30522,
            hidden_size=self.hidden,
            num_layers=self.layers,
            num_heads=self.heads,
            intermediate_size=4 * self.hidden,
            has_pooler=False,
        )


MINILM = Shape("MiniLM", 384, 6, 12, 128, 32)
BASE = Shape("bert-base", 768, 12, 12, 32, 32)
SMOKE = Shape("smoke", 16, 2, 2, 4, 8)


def batch_of(shape: Shape) -> Tokens:
    """Random tokens; half to all of a row's places are real."""
    rng = np.random.default_rng(0)
    real = np.arange(shape.length) < rng.integers(shape.length // 2, shape.length + 1, (shape.texts, 1))
    ids = np.where(real, rng.integers(1000, 30000, real.shape), 0).astype(np.int32)
    return Tokens(ids, real.astype(np.float32), np.zeros_like(ids))


def matrix_flops(params: Params, tokens: int) -> float:
    """GFLOP of the layers' matrix products for so many tokens, without attention's own."""
    layers = [leaf for name, tree in params.items() if name.startswith("layer_") for leaf in jax.tree.leaves(tree)]
    return 2e-9 * tokens * sum(leaf.size for leaf in layers if leaf.ndim == 2)


def agree(case: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Refuses to time what computes something else."""
    error = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-30))
    if not error < TOLERANCE:
        raise SystemExit(f"{case}: the two disagree: relative error {error:.1e}")


def one_batch(shape: Shape, rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """The same padded batch, forward and forward + backward."""
    from benchmarks.torch_reference import encoder as theirs

    config, tokens = shape.config, batch_of(shape)
    params = init(jax.random.key(0), config)
    weights = np.random.default_rng(1).normal(size=(shape.texts, shape.hidden)).astype(np.float32)
    on_device, cotangent = jax.device_put((tokens, weights))

    def ahead(params: Params, tokens: Tokens) -> jax.Array:
        return encode(params, config, tokens, normalise=True)

    def back(params: Params, tokens: Tokens, cotangent: jax.Array) -> Params:
        return jax.grad(lambda params: jnp.vdot(ahead(params, tokens), cotangent))(params)

    run_ahead, of_forward = phases(ahead, params, on_device)
    run_back, of_both = phases(back, params, on_device, cotangent)
    model = theirs.bert(config, params)
    rivals = {
        "forward": theirs.forward(model, tokens),
        "forward + backward": theirs.forward_backward(model, tokens, weights),
    }
    faster, left_out = {}, {}
    if shape != SMOKE:  # compiling takes minutes
        try:
            twin = theirs.compiled(config, params)
            faster = {
                "forward": theirs.forward(twin, tokens),
                "forward + backward": theirs.forward_backward(twin, tokens, weights),
            }
            agree(f"{shape.name}, compiled", faster["forward"]().numpy(), rivals["forward"]().numpy())
            faster["forward + backward"]()
        except RuntimeError as error:  # of torch.compile: no compiler of C++, say
            faster, left_out = {}, {"torch.compile": str(error)}
    agree(shape.name, np.asarray(run_ahead(params, on_device)), rivals["forward"]().numpy())
    name = "encoder.layer.0.attention.self.query.weight"
    mine = np.asarray(run_back(params, on_device, cotangent)["layer_0"]["query"]["kernel"]).T
    agree(shape.name, mine, rivals["forward + backward"]()[name].numpy())
    ours: dict[str, Callable[[], Any]] = {
        "forward": lambda: jax.block_until_ready(run_ahead(params, on_device)),
        "forward + backward": lambda: jax.block_until_ready(run_back(params, on_device, cotangent)),
    }
    of_programs = {"forward": of_forward, "forward + backward": of_both}
    for case, run in ours.items():
        of_programs[case]["first_s"] = first(run)
    machine = roofline.Machine(small=shape == SMOKE)
    contenders = [harness.Contender(f"{case}/ours", run) for case, run in ours.items()]
    contenders += [harness.Contender(f"{case}/transformers", run) for case, run in rivals.items()]
    contenders += [harness.Contender(f"{case}/torch.compile", run) for case, run in faster.items()]
    contenders += machine.contenders()
    seconds = harness.take_turns(contenders, rounds=rounds, reporter=reporter, label=shape.name)
    best = machine.best(seconds)
    rows = []
    facts: dict[str, Any] = {
        "shape": dataclasses.asdict(shape),
        "gflop forward": matrix_flops(params, tokens.ids.size),
        "unavailable": left_out,
    }
    for case in ours:
        pair = {name.split("/")[1]: taken for name, taken in seconds.items() if name.split("/")[0] == case}
        bars = {"transformers": BARS[case]}
        label = f"{case}, {shape.name}"
        own = facts | {"phases": {"ours": of_programs[case]}}
        own["roofline"] = roofline.reached(best, own["phases"], pair)
        rows += harness.compare(label, pair, ours="ours", work=shape.texts, metric="texts/s", bars=bars, facts=own)
    return rows


def real_texts(rounds: int, reporter: Reporter = QUIET, *, smoke: bool = False) -> list[harness.Row]:
    """The items of MovieLens-100K in length buckets: which share of the time the products would take at the peak."""
    encoder = load("random" if smoke else "minilm")
    texts = load_data(DataConfig(), seed=0).items.texts[: FEW if smoke else None]
    tokens = tokenize(encoder.tokenizer, texts, 128)
    parts = [jax.device_put(chunk.tokens) for chunk in chunks(tokens.ids, limit=128, tokens_per_call=2048)]
    program = jax.jit(lambda params, tokens: encode(params, encoder.config, tokens, normalise=True))
    watched = Watched(program)
    for part in parts:
        watched(encoder.params, part)
    own = together(watched.programs.values())

    def run() -> Any:
        return jax.block_until_ready([program(encoder.params, part) for part in parts])

    own["first_s"] = first(run)
    machine = roofline.Machine(small=smoke)
    contenders = [harness.Contender("ours", run), *machine.contenders()]
    seconds = harness.take_turns(contenders, rounds=rounds, reporter=reporter, label="real texts")
    best = machine.best(seconds)
    facts = {"phases": {"ours": own}, "roofline": {"ours": best.reached(own, seconds["ours"])}}
    real = sum(len(ids) for ids in tokens.ids)
    padded = sum(part.ids.size for part in parts)
    peak = best.peak
    rows = []
    for metric, count in (("GFLOP/s of products, padding included", padded), ("GFLOP/s of products", real)):
        achieved = matrix_flops(encoder.params, count) / seconds["ours"]
        low, median, high = np.quantile(achieved / peak, [0.05, 0.5, 0.95])
        rows.append(
            harness.Row(
                case="forward, real texts",
                contender="gemm-peak",
                metric=metric,
                ours=float(np.median(achieved)),
                theirs=float(np.median(peak)),
                ratio={"median": float(median), "low": float(low), "high": float(high)},
                bar=OF_PEAK if count == real else None,
                facts=facts | {"texts": len(texts), "tokens": real, "padded tokens": padded, "rounds": rounds},
            )
        )
    return rows


def catalogue_texts(count: int) -> list[str]:
    """Distinct texts, from titles to descriptions of a hundred tokens: one item's text, then a few more titles."""
    items = load_data(DataConfig(), seed=0).items
    rng = np.random.default_rng(0)
    more = np.minimum(rng.geometric(0.4, count) - 1, 12)
    return [
        f"{row} {items.texts[row % len(items)]} {'; '.join(items.titles[i] for i in rng.integers(0, len(items), n))}"
        for row, n in enumerate(more)
    ]


def catalogue(count: int, rounds: int, reporter: Reporter = QUIET, *, smoke: bool = False) -> list[harness.Row]:
    """A whole catalogue from text to table, tokenising included."""
    from benchmarks.torch_reference import encoder as theirs

    encoder = load("random" if smoke else "minilm")
    texts = catalogue_texts(count)
    rival = theirs.sorted_batching(theirs.bert(encoder.config, encoder.params), encoder.tokenizer.backend, texts)
    few = texts[:64]
    agree(
        "catalogue",
        encode_table(encoder, few),
        theirs.sorted_batching(theirs.bert(encoder.config, encoder.params), encoder.tokenizer.backend, few)(),
    )
    contenders = [
        harness.Contender("ours", lambda: encode_table(encoder, texts)),
        harness.Contender("sorted-batching", rival),
    ]
    seconds = harness.take_turns(contenders, rounds=rounds, warmup=0, reporter=reporter, label="catalogue")
    lengths = [len(ids) for ids in tokenize(encoder.tokenizer, few, 128).ids]
    facts = {"texts": count, "mean tokens": float(np.mean(lengths)), "first call compiles": True}
    return harness.compare(
        "catalogue",
        seconds,
        ours="ours",
        work=count,
        metric="texts/s",
        bars={"sorted-batching": BARS["catalogue"]},
        facts=facts,
    )


if __name__ == "__main__":
    from benchmarks.suite import main

    main("encoder", "outer-step-joint", "catalogue", description=__doc__)
