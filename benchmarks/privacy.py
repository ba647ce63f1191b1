"""What privacy costs: errors and rankings of test users, for a few epsilons, against the same training without it.

python -m benchmarks.privacy --json OUT

For each seed the users of MovieLens-100K are split as `metarec evaluate --protocol recbole-metarec` splits them, and
the model is trained once without privacy (item statistics, profiles, the validation loss choosing the epoch), once on
what a private run may read but without noise, and once for each epsilon. All are asked the same queries of test users.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from metarec_jax import launch, privacy
from metarec_jax.config import Config, PrivacyConfig, preset
from metarec_jax.errors import MetarecError, Stopped
from metarec_jax.evaluation.bootstrap import paired_bootstrap
from metarec_jax.evaluation.judge import judge
from metarec_jax.evaluation.methods import adapting, untrained
from metarec_jax.evaluation.metrics import metric
from metarec_jax.evaluation.report import SeedResult
from metarec_jax.progress import QUIET, Reporter
from metarec_jax.train import fit

METRICS = ("mae", "rmse", "auc", "ndcg@5")
ORDINARY = "without privacy"
STARVED = "what a private run reads, untrained"
NOTHING_ADDED = "what a private run reads, without noise"
NEXT_TO_NONE = 1e6
"""An epsilon that takes next to no noise, and promises nothing."""


def standard(seed: int, epochs: int, users_per_step: int) -> Config:
    """The training without privacy; few large steps, since every step is paid for."""
    base = preset("movielens-100k")
    train = dataclasses.replace(base.train, epochs=epochs, users_per_step=users_per_step, patience=0)
    return dataclasses.replace(base, train=train, seed=seed)


def private(config: Config, epsilon: float) -> Config:
    """The same under privacy, of the run as a whole."""
    return dataclasses.replace(config, privacy=PrivacyConfig(epsilon=epsilon))


def measure(
    configs: Sequence[Config], epsilons: Sequence[float], folder: Path, reporter: Reporter = QUIET
) -> list[harness.Row]:
    """Trains and judges, seed by seed.

    Args:
        configs: without privacy, one for each seed.
        epsilons: of the private trainings.
        folder: where runs are kept, to go on with.
        reporter: where progress is shown.
    """
    results: dict[str, list[SeedResult]] = {}
    spent: dict[str, Any] = {}
    for config in configs:
        wanted = {ORDINARY: config, NOTHING_ADDED: private(config, NEXT_TO_NONE)}
        wanted |= {f"epsilon {epsilon:g}": private(config, epsilon) for epsilon in epsilons}
        for name, chosen in wanted.items():
            reporter.note(f"seed {config.seed}, {name}")
            run_folder = folder / f"{config.seed}" / name.replace(" ", "-").replace(",", "")
            there = (run_folder / "config.json").exists()
            start = launch.resume if there else lambda place, c=chosen, **more: launch.start(c, place, **more)
            run, assembly = start(run_folder, reporter=reporter)
            if (run.config.train, run.config.privacy) != (chosen.train, chosen.privacy):
                raise MetarecError(f"{run_folder} holds a run with other options: name another folder with --runs")
            fitted = fit(run, assembly, reporter=reporter)
            if fitted.signal is not None:
                raise Stopped(fitted.signal)
            answers = {name: fitted.trainable}
            if name == NOTHING_ADDED:
                answers[STARVED] = untrained(assembly)
            for method, trainable in answers.items():
                found = judge(assembly, assembly.test, method, adapting(assembly.model, trainable), metrics=METRICS)
                results.setdefault(method, []).append(found)
            spent[name] = privacy.read(run)
    facts = {"config": dataclasses.asdict(configs[0]), "seeds": [config.seed for config in configs]}
    return _compared(results, spent, facts)


def _compared(
    results: Mapping[str, Sequence[SeedResult]], spent: Mapping[str, Any], facts: Mapping[str, Any]
) -> list[harness.Row]:
    rows = []
    ordinary = results[ORDINARY]
    users = np.concatenate([result.users for result in ordinary])
    seeds = np.concatenate([np.full(len(result.users), result.seed) for result in ordinary])
    for name, found in results.items():
        if name == ORDINARY:
            continue
        for measured in METRICS:
            ours, theirs, weights = (
                np.concatenate([getattr(result.values[measured], field) for result in of])
                for of, field in ((found, "values"), (ordinary, "values"), (ordinary, "weights"))
            )
            transform = np.sqrt if measured == "rmse" else None
            interval = paired_bootstrap(ours, theirs, weights, groups=users, strata=seeds, transform=transform)
            mine, other = (_mean(values, weights, seeds, transform) for values in (ours, theirs))
            better = metric(measured).better
            ratio = other / mine if better == "lower" else mine / other
            more: dict[str, Any] = {"difference": interval._asdict(), "better": better, "privacy": spent.get(name)}
            rows.append(
                harness.Row(
                    case=name,
                    contender=ORDINARY,
                    metric=measured,
                    ours=mine,
                    theirs=other,
                    ratio=dict.fromkeys(("median", "low", "high"), ratio),
                    facts=more | ({} if rows else dict(facts)),
                )
            )
    return rows


def _mean(values: np.ndarray, weights: np.ndarray, seeds: np.ndarray, transform: Any) -> float:
    values = np.where(weights > 0, values, 0.0)  # what counts nothing may be NaN
    each = [values[seeds == s] @ weights[seeds == s] / weights[seeds == s].sum() for s in np.unique(seeds)]
    return float(np.mean(each if transform is None else transform(each)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--runs", type=Path, help="where runs are kept, to go on with; a new folder where left out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 8.0, 20.0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--users-per-step", type=int, default=128)
    arguments = parser.parse_args()
    from metarec_jax.console import make_reporter

    folder = arguments.runs or Path(tempfile.mkdtemp(prefix="metarec-privacy-"))
    configs = [standard(seed, arguments.epochs, arguments.users_per_step) for seed in range(arguments.seeds)]
    rows = measure(configs, arguments.epsilons, folder, make_reporter())
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
