"""The encoder against transformers' PyTorch model: one batch, real texts, a whole catalogue, and a joint step.

python -m benchmarks encoder outer-step-joint catalogue --json OUT
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, roofline
from benchmarks.cases import SMOKE_SHAPE, Shape, batch_of
from benchmarks.phases import Watched, first, phases, together
from benchmarks.tasks import movielens
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Params
from metarec_jax.encoder import Tokens, chunks, encode, encode_table, init, load, tokenize

BARS = {"forward": 1.0, "forward + backward": 1.0, "catalogue": 2.0}
OF_PEAK = 0.7
CATALOGUE = 100_000
"""Number of texts of the catalogue."""
FEW = 8
"""Number of texts at the smallest size."""
TOLERANCE = 2e-5
"""Largest error of embeddings (of length 1), and of gradients relative to the largest."""


def matrix_flops(params: Params, tokens: int) -> float:
    """GFLOP of the layers' matrix products for a number of tokens, without products inside attention."""
    layers = [leaf for name, tree in params.items() if name.startswith("layer_") for leaf in jax.tree.leaves(tree)]
    return 2e-9 * tokens * sum(leaf.size for leaf in layers if leaf.ndim == 2)


def agree(case: str, found: np.ndarray, wanted: np.ndarray) -> None:
    """Check that two contenders compute the same.

    Args:
        case: name of the case, for the error message.
        found, wanted: their results.

    Raises:
        SystemExit: the relative error is not below `TOLERANCE`.
    """
    error = float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-30))
    if not error < TOLERANCE:
        raise SystemExit(f"{case}: the two disagree: relative error {error:.1e}")


def one_batch(shape: Shape, rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """The same padded batch, forward and forward + backward."""
    from benchmarks.torch_reference import encoder as theirs

    config, tokens = shape.config, batch_of(shape)
    params = init(0, config)
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
    if shape != SMOKE_SHAPE:  # compiling takes minutes
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
    machine = roofline.Machine(small=shape == SMOKE_SHAPE)
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
    """GFLOP/s of products on the items of MovieLens-100K in length buckets, against a large matrix product."""
    encoder = load("random" if smoke else "minilm")
    texts = movielens().items.texts[: FEW if smoke else None]
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
    items = movielens().items
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
