"""Compare trainings with the encoder in the outer loop with those of a frozen encoder, on test users.

python -m benchmarks.joint_accuracy --json OUT --runs FOLDER

For each seed the users of MovieLens-100K are split as in `metarec evaluate --protocol recbole-metarec`. The model is
trained with a frozen encoder and with the encoder in the outer loop, with the same number of steps; and again with a
frozen encoder for the default number of epochs. All are evaluated on the same queries of test users. Predictions before
adapting, the twin without an inner loop and the baselines are those of the frozen training of the same length. A
benchmark that was stopped continues in the same folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, variants
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config, preset
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.evaluation.methods import (
    BEFORE,
    BIAS,
    META,
    RIDGE,
    STRANGER,
    TWIN,
    adapting,
    methods_of,
    not_adapting,
    without_inner_loop,
)
from metarec_jax.evaluation.table import SeedResult

FROZEN = "frozen"
LONGER = "frozen, trained as usual"
BESIDE = {
    BIAS: BIAS,
    RIDGE: RIDGE,
    STRANGER: f"{FROZEN}: {STRANGER}",
    TWIN: f"{FROZEN}: {TWIN}",
    BEFORE: f"{FROZEN}, before adapting",
}
"""Baselines of the frozen training that are evaluated too: method -> name in the table."""
WAYS: Mapping[str, Mapping[str, Any]] = {
    "all": {"train": "all", "rate": 1e-4},
    "lora": {"train": "lora", "rate": 1e-3},
}
"""Ways to train the encoder. Their rates were not tuned."""


def standard(seed: int, epochs: int, users_per_step: int) -> Config:
    """The config of the frozen training of the same length.

    Args:
        seed: seed of the run.
        epochs: epochs of the training.
        users_per_step: users of an outer step.
    """
    base = usual(seed)
    train = dataclasses.replace(base.train, epochs=epochs, users_per_step=users_per_step, patience=0)
    return dataclasses.replace(base, train=train)


def usual(seed: int) -> Config:
    """The frozen training with default options, without factors: items have only texts and statistics."""
    base = preset("movielens-100k")
    return dataclasses.replace(base, factors=dataclasses.replace(base.factors, rank=0), seed=seed)


def in_the_loop(config: Config, way: str) -> Config:
    """The same config with the encoder in the outer loop, trained in one of the `WAYS`."""
    encoder: EncoderConfig = dataclasses.replace(config.encoder, **WAYS[way])
    return dataclasses.replace(config, encoder=encoder)


def measure(
    configs: Sequence[Config], longer: Sequence[Config], ways: Sequence[str], folder: Path, reporter: Reporter = QUIET
) -> list[harness.Row]:
    """Train and evaluate all variants for each seed.

    Args:
        configs: configs of the frozen training, one for each seed.
        longer: the same with the default number of epochs.
        ways: ways to train the encoder.
        folder: folder of the runs, which are continued.
        reporter: shows progress.
    """
    results: dict[str, list[SeedResult]] = {}

    def keep(name: str, result: SeedResult) -> None:
        results.setdefault(name, []).append(result)

    for config, usually in zip(configs, longer):
        own = folder / f"{config.seed}"
        reporter.note(f"seed {config.seed}, {FROZEN}, and its twin")
        _, experiment, trainable = variants.trained(config, own / "frozen", reporter)
        _, apart, twin = variants.trained(without_inner_loop(config), own / "twin", reporter)
        methods = methods_of(experiment, trainable, apart, twin, reporter)
        for method, name in ({META: FROZEN} | BESIDE).items():
            keep(name, variants.judged(experiment, name, methods[method].function))
        for way, chosen in {LONGER: usually, **{way: in_the_loop(config, way) for way in ways}}.items():
            reporter.note(f"seed {config.seed}, {way}")
            place = "longer" if way == LONGER else way
            _, trained, learned = variants.trained(chosen, own / place, reporter)
            keep(way, variants.judged(trained, way, adapting(trained.model, learned)))
            if way != LONGER:
                before = f"{way}, before adapting"
                keep(before, variants.judged(trained, before, not_adapting(trained.model, learned)))
    facts = {"config": dataclasses.asdict(configs[0]), "seeds": [config.seed for config in configs], "ways": dict(WAYS)}
    usual_and_joint = {name: results[name] for name in (LONGER, *ways)}
    return variants.compared(results, FROZEN, facts, {}) + variants.compared(usual_and_joint, LONGER, {}, {})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--runs", type=Path, help="folder of the runs, which are continued; by default a new folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", choices=list(WAYS), nargs="+", default=["all"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--users-per-step", type=int, default=128)
    arguments = parser.parse_args()
    from metarec_jax.core.console import make_reporter

    folder = arguments.runs or Path(tempfile.mkdtemp(prefix="metarec-joint-"))
    configs = [standard(seed, arguments.epochs, arguments.users_per_step) for seed in range(arguments.seeds)]
    longer = [usual(seed) for seed in range(arguments.seeds)]
    rows = measure(configs, longer, arguments.ways, folder, make_reporter())
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
