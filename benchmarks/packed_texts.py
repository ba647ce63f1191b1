"""Texts of many lengths, each side as it is really run: ours packed into rows, PyTorch's sorted by length and padded.

python -m benchmarks.packed_texts [--rounds N] [--json OUT]

"products" are the matrix products of a forward pass of the real tokens and nothing else, three times for forward +
backward: the ratio to them is the share of the speed of products that the whole reaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks.encoder import agree, matrix_flops
from benchmarks.joint import TOKENS_PER_CALL, computed_tokens, turns_of
from benchmarks.phases import first, phases
from benchmarks.tasks import movielens
from metarec_jax.core.console import make_reporter
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Params
from metarec_jax.encoder import Encoder, Texts, encode, load, tokenize
from metarec_jax.meta.text_passes import Chosen, Reading, embed, pull_back

BARS = {"transformers, sorted": 1.0, "products": 0.83}
BATCHES = (32, 128)
"""Texts of a batch of PyTorch: the default of sentence-transformers, and one with fewer calls."""
MIXED, LEAST, MOST = 512, 8, 256
"""Number of texts of the mix, and their numbers of tokens."""
TITLES = 128
"""Greatest number of tokens of an item's text."""


class Case(NamedTuple):
    """Texts that are encoded.

    Attributes:
        name: name of the case.
        ids: token ids of each text.
    """

    name: str
    ids: Sequence[np.ndarray]


def cases(encoder: Encoder, *, smoke: bool = False) -> list[Case]:
    """The item texts of MovieLens-100K, and random tokens of which the logarithm of the number is uniform."""
    texts = movielens().items.texts[: 8 if smoke else None]
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(LEAST), np.log(MOST + 1), 8 if smoke else MIXED)).astype(int)
    least = min(1000, encoder.config.vocab_size // 2)
    mixed = [rng.integers(least, encoder.config.vocab_size, size).astype(np.int32) for size in sizes]
    return [
        Case("item texts", tokenize(encoder.tokenizer, texts, TITLES).ids),
        Case(f"{LEAST} to {MOST} tokens", mixed),
    ]


class Ours(NamedTuple):
    """Our programs of a case.

    Attributes:
        forward: embeddings of the distinct texts.
        back: gradient of the sum of embeddings times the cotangent.
        slots: slot of the embedding of each text.
        cotangent: [slots, hidden].
        computed: tokens that are computed, padding included.
        facts: facts of both programs.
        texts: both compiled programs, as HLO.
    """

    forward: Callable[[], Any]
    back: Callable[[], Any]
    slots: np.ndarray
    cotangent: np.ndarray
    computed: int
    facts: dict[str, dict[str, float]]
    texts: dict[str, str]


def ours_of(encoder: Encoder, ids: Sequence[np.ndarray], tokens_per_call: int) -> Ours:
    """Pack texts as joint training does, and compile both programs.

    Args:
        encoder: the encoder.
        ids: token ids of each text.
        tokens_per_call: tokens that are encoded at a time.

    Returns:
        The programs.
    """
    texts = Texts.of(ids, tokens_per_call=tokens_per_call, width=encoder.config.hidden_size)
    rows, slots = texts.everything()
    count = texts.slots(len(ids))
    reading = Reading(
        lambda params, tokens: encode(params, encoder.config, tokens, normalise=True), texts.plan.per_call, count
    )
    chosen = jax.device_put(Chosen(rows))
    cotangent = np.random.default_rng(1).normal(size=(count, encoder.config.hidden_size)).astype(np.float32)
    fed = jax.device_put(cotangent)
    turns = turns_of(texts, rows)

    def back(params: Params, chosen: Chosen, cotangent: Any) -> Params:
        return pull_back(reading, lambda moving: moving, params, chosen, cotangent)

    ahead, of_ahead = phases(lambda params, chosen: embed(reading, params, chosen), encoder.params, chosen, turns=turns)
    behind, of_behind = phases(back, encoder.params, chosen, fed, turns=turns)
    return Ours(
        lambda: jax.block_until_ready(ahead(encoder.params, chosen)),
        lambda: jax.block_until_ready(behind(encoder.params, chosen, fed)),
        slots,
        cotangent,
        computed_tokens(texts, np.arange(len(ids))),
        {"forward": of_ahead, "forward + backward": of_behind},
        {"forward": ahead.as_text() or "", "forward + backward": behind.as_text() or ""},
    )


def products_of(params: Params, tokens: int, tokens_per_call: int) -> Callable[[], Any]:
    """The matrix products of a forward pass and nothing else: those of each layer, one after another.

    Args:
        params: parameters of the encoder.
        tokens: number of tokens.
        tokens_per_call: tokens of one product.

    Returns:
        A function that computes them.
    """
    layers = [tree for name, tree in params.items() if name.startswith("layer_")]
    kernels = [[leaf for leaf in jax.tree.leaves(tree) if leaf.ndim == 2] for tree in layers]
    width = kernels[0][0].shape[0]

    @jax.jit
    def run(kernels: Any, rows: jax.Array) -> jax.Array:
        def call(_: Any, rows: jax.Array) -> jax.Array:
            for layer in kernels:
                square = [kernel for kernel in layer if kernel.shape == (width, width)]
                up, down = (next(k for k in layer if k.shape[axis] != width) for axis in (1, 0))
                for kernel in square:
                    rows = rows @ kernel
                rows = (rows @ up) @ down
            return rows

        return jax.lax.fori_loop(0, -(-tokens // tokens_per_call), call, rows)

    held = jax.device_put((kernels, jnp.zeros((tokens_per_call, width))))
    return lambda: jax.block_until_ready(run(*held))


def compare(
    rounds: int,
    reporter: Reporter = QUIET,
    *,
    name: str = "minilm",
    tokens_per_call: int = TOKENS_PER_CALL,
    smoke: bool = False,
) -> list[harness.Row]:
    """Texts per second, forward and forward + backward, against PyTorch and against our own products.

    Args:
        rounds: turns of each contender.
        reporter: shows progress.
        name: name of the encoder, or its folder.
        tokens_per_call: tokens that are encoded at a time.
        smoke: whether to take few texts.
    """
    from benchmarks.torch_reference import encoder as theirs

    encoder = load(name)
    model = theirs.bert(encoder.config, encoder.params)
    rows = []
    for case in cases(encoder, smoke=smoke):
        mine = ours_of(encoder, case.ids, tokens_per_call)
        weights = np.zeros((len(case.ids), encoder.config.hidden_size), np.float32)
        texts = np.unique(mine.slots, return_index=True)[1]  # each distinct text has one cotangent
        weights[texts] = mine.cotangent
        ids, real = [case.ids[text] for text in texts], sum(len(case.ids[text]) for text in texts)
        sorted_texts = {batch: theirs.Sorted(model, ids, weights[texts], batch) for batch in BATCHES}
        agree(case.name, np.asarray(mine.forward()), sorted_texts[BATCHES[0]].forward())
        found = np.asarray(mine.back()["layer_0"]["query"]["kernel"]).T
        gradient = sorted_texts[BATCHES[0]].back()["encoder.layer.0.attention.self.query.weight"]
        agree(f"{case.name}, gradient", found, gradient.numpy())
        gflop = matrix_flops(encoder.params, real)
        contenders = [
            harness.Contender("forward/ours", mine.forward),
            harness.Contender("forward + backward/ours", mine.back),
            harness.Contender("products", products_of(encoder.params, real, tokens_per_call)),
        ]
        for batch, one in sorted_texts.items():
            contenders.append(harness.Contender(f"forward/{batch}", one.forward))
            contenders.append(harness.Contender(f"forward + backward/{batch}", one.back))
        for which, run in (("forward", mine.forward), ("forward + backward", mine.back)):
            mine.facts[which]["first_s"] = first(run)
        seconds = harness.take_turns(contenders, rounds=rounds, reporter=reporter, label=case.name)
        for which, passes in (("forward", 1), ("forward + backward", 3)):
            batch = min(BATCHES, key=lambda batch, of=which: float(np.median(seconds[f"{of}/{batch}"])))
            taken = {
                "ours": seconds[f"{which}/ours"],
                "transformers, sorted": seconds[f"{which}/{batch}"],
                "products": passes * seconds["products"],
            }
            facts = {
                "texts": len(ids),
                "tokens": real,
                "computed tokens, ours": mine.computed,
                "computed tokens, sorted": sorted_texts[batch].computed,
                "gflop of products of real tokens": passes * gflop,
                "texts of a batch, sorted": batch,
                "phases": {"ours": mine.facts[which]},
            }
            label = f"{which}, {case.name}"
            rows += harness.compare(label, taken, ours="ours", work=len(ids), metric="texts/s", bars=BARS, facts=facts)
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    arguments = parser.parse_args()
    rows = compare(arguments.rounds, make_reporter())
    harness.show(rows)
    if arguments.json:
        harness.write(rows, arguments.json)


if __name__ == "__main__":
    main()
