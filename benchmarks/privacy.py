"""Compare private trainings of several epsilons with the same training without privacy, on test users.

python -m benchmarks.privacy --json OUT

For each seed the users of MovieLens-100K are split as in `metarec evaluate --protocol recbole-metarec`. The model is
trained once without privacy (with factors, profiles, and the epoch chosen by validation loss), once on the inputs of a
private run with almost no noise, and once for each epsilon. All are evaluated on the same queries of test users.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, variants
from metarec_jax.config.run import Config, preset
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.evaluation.methods import adapting, untrained
from metarec_jax.evaluation.table import SeedResult
from metarec_jax.privacy import accounting
from metarec_jax.privacy.options import PrivacyConfig

ORDINARY = "without privacy"
STARVED = "what a private run reads, untrained"
NOTHING_ADDED = "what a private run reads, with the least noise there is"
NEXT_TO_NONE = 1e6
"""An epsilon without any protection, for which `metarec_jax.privacy.accounting.LEAST_NOISE` is added."""


def standard(seed: int, epochs: int, users_per_step: int) -> Config:
    """The config without privacy; few large steps, since every step spends epsilon.

    Args:
        seed: seed of the run.
        epochs: epochs of the training.
        users_per_step: users of an outer step.
    """
    base = preset("movielens-100k")
    train = dataclasses.replace(base.train, epochs=epochs, users_per_step=users_per_step, patience=0)
    return dataclasses.replace(base, train=train, seed=seed)


def private(config: Config, epsilon: float) -> Config:
    """The same config with a private run."""
    factors = dataclasses.replace(config.factors, rank=0)
    return dataclasses.replace(config, factors=factors, privacy=PrivacyConfig(epsilon=epsilon))


def measure(
    configs: Sequence[Config], epsilons: Sequence[float], folder: Path, reporter: Reporter = QUIET
) -> list[harness.Row]:
    """Train and evaluate all variants for each seed.

    Args:
        configs: configs without privacy, one for each seed.
        epsilons: epsilon of each private training.
        folder: folder of the runs, which are continued.
        reporter: shows progress.
    """
    results: dict[str, list[SeedResult]] = {}
    spent: dict[str, Any] = {}
    for config in configs:
        wanted = {ORDINARY: config, NOTHING_ADDED: private(config, NEXT_TO_NONE)}
        wanted |= {f"epsilon {epsilon:g}": private(config, epsilon) for epsilon in epsilons}
        for name, chosen in wanted.items():
            reporter.note(f"seed {config.seed}, {name}")
            place = folder / f"{config.seed}" / name.replace(" ", "-").replace(",", "")
            run, experiment, trainable = variants.trained(chosen, place, reporter)
            answers = {name: trainable}
            if name == NOTHING_ADDED:
                answers[STARVED] = untrained(experiment)
            for method, answering in answers.items():
                found = variants.judged(experiment, method, adapting(experiment.model, answering))
                results.setdefault(method, []).append(found)
            spent[name] = {"privacy": accounting.read(run)}
    facts = {"config": dataclasses.asdict(configs[0]), "seeds": [config.seed for config in configs]}
    return variants.compared(results, ORDINARY, facts, spent)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--runs", type=Path, help="folder of the runs, which are continued; by default a new folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0, 20.0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--users-per-step", type=int, default=128)
    arguments = parser.parse_args()
    from metarec_jax.core.console import make_reporter

    folder = arguments.runs or Path(tempfile.mkdtemp(prefix="metarec-privacy-"))
    configs = [standard(seed, arguments.epochs, arguments.users_per_step) for seed in range(arguments.seeds)]
    rows = measure(configs, arguments.epsilons, folder, make_reporter())
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
