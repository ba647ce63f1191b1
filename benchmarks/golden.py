"""Golden figures: losses, gradients and parameters of fixed seeds, to compare later versions of the code with.

python -m benchmarks.golden [--out FILE] [--check FILE] [CASE ...]

Each case takes 20 outer steps as in `metarec_jax.train.start.fit`. With --check they are computed again and compared
with the figures in a file; the exit status is 1 if a difference exceeds rounding.

Processors with other instructions sum in another order: with XLA_FLAGS=--xla_cpu_max_isa=AVX2 and
OPENBLAS_CORETYPE=Haswell, as in the tests, recent x86 processors use the same ones.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config, preset
from metarec_jax.core.environment import environment
from metarec_jax.core.params import path_names
from metarec_jax.meta.encoder_step import make_joint_step
from metarec_jax.meta.outer import make_step
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.joint_program import texts_of_part, trained_part
from metarec_jax.train.sharding import user_mesh
from metarec_jax.train.start import program_of

STEPS = 20
SAMPLES = 16
TOLERANCE = 1e-5
UNDEFINED = re.compile(r"encoder/.*/key/bias")
"""Leaves left out of the comparison: attention does not depend on key biases, so their gradient is rounding alone, and
Adam scales it up."""
HEADER = ("python", "platform", "cpu", "packages", "flags", "git")
CASES: Mapping[str, tuple[str, EncoderConfig, dict[str, Any], int, int]] = {
    "synthetic-frozen": ("synthetic", EncoderConfig(path="random"), {}, 32, 5),
    "synthetic-joint": ("synthetic", EncoderConfig(path="random", train="all", rate=1e-3), {}, 32, 5),
    "ml-100k-frozen": ("movielens-100k", EncoderConfig(), {}, 32, 2),
    "ml-100k-joint": (
        "movielens-100k",
        EncoderConfig(max_length=16, train="all", rate=1e-4),
        {"buckets": (32,)},  # one program to compile
        16,
        1,
    ),
}
"""Case -> preset, encoder, changes of the preset's episodes, users of a step, and epochs, which are few, so that 20
steps are most of the schedule."""


def config_of(case: str, cache: str) -> Config:
    """The config of a case; `cache` is an empty folder for embeddings, so that the encoder is run."""
    name, encoder, episodes, users, epochs = CASES[case]
    base = preset(name)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, cache=cache, download=False),
        encoder=encoder,
        episodes=dataclasses.replace(base.episodes, **episodes),
        train=dataclasses.replace(base.train, users_per_step=users, epochs=epochs, devices=1),
        seed=0,
    )


def figures(config: Config, folder: Path) -> dict[str, Any]:
    """Take the first steps of a run.

    Args:
        config: config of the run.
        folder: for the run.

    Returns:
        ``loss``, the mean query loss of each step; ``gradient`` of the first step and ``parameters`` after the last,
        both a `summary` by the path of the leaf.
    """
    experiment = build(config)
    program = program_of(run_folder.create(folder, experiment.config), experiment)
    state, losses, gradient = program.first_state(), [], {}
    slope = jax.jit(gradient_step(experiment))
    with contextlib.closing(program.feed()) as feed, program.scope():
        for _ in range(STEPS):
            batch = next(feed)
            if not gradient:
                start = state._replace(optimiser=KEEP.init(state.trainable))
                gradient = summaries(slope(start, *batch.arguments)[0].optimiser.trace)
            state, loss = program.step(state, *batch.arguments)
            losses.append(float(loss.query) / float(loss.rows))
    return {"loss": losses, "gradient": gradient, "parameters": summaries(state.trainable)}


KEEP = optax.trace(decay=0.0)
"""An optimizer whose state after a step is its gradient."""


def gradient_step(experiment: Experiment) -> Any:
    """An outer step of the experiment's kind whose state stores the gradient."""
    config, model = experiment.config, experiment.model
    if config.encoder.train == "no":
        return make_step(model, KEEP)
    texts = texts_of_part(experiment, experiment.train, user_mesh(config.train.devices))
    return make_joint_step(model, texts.devices.reading, trained_part(config), KEEP)


def summaries(tree: Any) -> dict[str, Any]:
    """The `summary` of each leaf by its path."""
    return dict(zip(path_names(tree), map(summary, jax.tree.leaves(jax.device_get(tree)))))


def summary(leaf: np.ndarray) -> dict[str, Any]:
    """Summary of an array: shape, totals (`projection` depends on positions), and evenly spaced entries."""
    flat = np.asarray(leaf, np.float64).ravel()
    at = np.unique(np.linspace(0, flat.size - 1, SAMPLES).astype(int))
    return {
        "shape": list(np.shape(leaf)),
        "max": float(np.max(np.abs(flat))),
        "sum": float(np.sum(flat)),
        "squares": float(flat @ flat),
        "projection": float(flat @ np.cos(np.arange(flat.size))),
        "entries": flat[at].tolist(),
    }


def difference(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> float:
    """The greatest relative difference between two summaries; infinite where one is missing or of another shape."""
    if was is None or now is None or was["shape"] != now["shape"]:
        return math.inf
    most = math.sqrt(math.prod(was["shape"]) * was["squares"])  # upper bound of sums of the entries
    scales = {"entries": was["max"], "max": was["max"], "squares": was["squares"], "sum": most, "projection": most}
    return max(relative(was[name], now[name], scale) for name, scale in scales.items())


def relative(was: Any, now: Any, scale: float) -> float:
    """max |was - now| / scale; 0 where both are equal, infinite where it is undefined."""
    apart = float(np.max(np.abs(np.subtract(was, now))))
    return 0.0 if apart == 0 else apart / scale if scale and math.isfinite(apart) else math.inf


def compare(case: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Print the worst leaf of each quantity of a case, and return whether all are within the tolerance."""
    rows = {"loss": {"": relative(was["loss"], now["loss"], max(map(abs, was["loss"])))}}
    for kind in ("gradient", "parameters"):
        for leaf in sorted({*was[kind], *now[kind]}):
            if not UNDEFINED.fullmatch(leaf):
                part, _, name = leaf.partition("/")
                rows.setdefault(f"{kind} {part}", {})[name] = difference(was[kind].get(leaf), now[kind].get(leaf))
    for quantity, ratios in rows.items():
        worst = max(ratios, key=lambda name: ratios[name])
        verdict = "" if ratios[worst] <= TOLERANCE else "  BEYOND"
        print(f"{case:17} {quantity:19} {worst:45} {ratios[worst]:.1e}{verdict}", flush=True)
    return all(ratio <= TOLERANCE for ratios in rows.values() for ratio in ratios.values())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the figures")
    parser.add_argument("--check", type=Path, help="a file of figures to compare with")
    parser.add_argument("cases", metavar="CASE", nargs="*", help=f"of {', '.join(CASES)}; all where left out")
    arguments = parser.parse_args()
    known = json.loads(arguments.check.read_text(encoding="utf-8")) if arguments.check else {}
    cases, there = arguments.cases or list(CASES), [case for case in CASES if case in known.get("cases", CASES)]
    if unknown := set(cases) - set(there):
        parser.error(f"there is no case {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    found: dict[str, Any] = {name: value for name, value in environment().items() if name in HEADER} | {"cases": {}}
    found["flags"]["OPENBLAS_CORETYPE"] = os.environ.get("OPENBLAS_CORETYPE", "")
    for name in HEADER:
        if known and known[name] != found[name]:
            print(f"note: {name} was {known[name]}, is {found[name]}")
    same = True
    for case in cases:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:
            found["cases"][case] = figures(config_of(case, cache), Path(cache) / "run")
        print(f"{case}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        if known:
            same &= compare(case, known["cases"][case], found["cases"][case])
    if arguments.out:
        text = json.dumps(found, indent=1)
        text = re.sub(r"\[[^][{}]*\]", lambda numbers: json.dumps(json.loads(numbers[0])), text)  # a list is one line
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
