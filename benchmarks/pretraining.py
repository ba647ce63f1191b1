"""Compare pretrained encoders with the untouched checkpoint, on validation users.

python -m benchmarks.pretraining --json OUT --runs FOLDER

For each seed, the encoder is pretrained for masked words, for likes, and for both, on training users and four fifths of
the items. Then every checkpoint is frozen, and evaluated with the heads of `benchmarks.frozen`. A benchmark that was
stopped continues in the same folder. Penalties are chosen on the validation users, separately for each checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks import frozen, harness, variants
from metarec_jax import encoder as encoders
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.pretrain import Objective, PretrainConfig, starting_from
from metarec_jax.config.run import Config, preset
from metarec_jax.config.train import TrainConfig
from metarec_jax.core.errors import MetarecError, Stopped
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.metrics.metrics import UserValues
from metarec_jax.train.pretraining import start
from metarec_jax.train.pretraining.start import fit

OBJECTIVES: tuple[Objective, ...] = ("mlm", "contrastive", "both")
UNTOUCHED = "untouched"
HEADS = ("ridge", "meta-trained")

Values = dict[tuple[str, str, str], list[Mapping[str, UserValues]]]
"""(head, part, checkpoint) -> for each seed, values of users by metric."""


def standard(seed: int, steps: int) -> PretrainConfig:
    """The measured config: the two upper layers of MiniLM on MovieLens-100K.

    Args:
        seed: seed of the pretraining.
        steps: steps of the pretraining.
    """
    base = starting_from(dataclasses.replace(preset("movielens-100k"), seed=seed))
    encoder = dataclasses.replace(base.encoder, rate=3e-4, frozen_layers=4)
    likes = dataclasses.replace(base.contrastive, liked_per_user=8)
    return dataclasses.replace(base, encoder=encoder, contrastive=likes, held_out=0.2, steps=steps, judge_every=steps)


def pretrained(config: PretrainConfig, folder: Path, reporter: Reporter) -> tuple[Path, dict[str, list[float]]]:
    """Pretrain in a folder, starting from the latest checkpoint if there is one.

    Args:
        config: config of the pretraining.
        folder: folder of its run.
        reporter: shows progress.

    Returns:
        The folder of the encoder, and for each metric on held-out data its values before and after.

    Raises:
        MetarecError: the folder holds a pretraining with other options.
        Stopped: by a signal.
    """
    if (folder / "config.json").exists():
        run, pretraining = start.resume(folder, reporter=reporter)
        if run.config != config:
            raise MetarecError(f"{folder} holds a pretraining with other options: name another folder with --runs")
    else:
        run, pretraining = start.start(config, folder, reporter=reporter)
    done = fit(run, pretraining, reporter=reporter)
    if done.signal:
        raise Stopped(done.signal)
    said = {name: [before, done.after[name]] for name, before in done.before.items()}
    return start.finish(run, pretraining, done), said


def measure(
    configs: Sequence[PretrainConfig],
    folder: Path,
    train: TrainConfig,
    factors: FactorsConfig | None = None,
    heads: Sequence[str] = HEADS,
    objectives: Sequence[Objective] = OBJECTIVES,
    reporter: Reporter = QUIET,
) -> list[harness.Row]:
    """Pretrain for each seed and objective, and evaluate the encoders.

    Args:
        configs: one for each seed; with any objective.
        folder: folder of the runs.
        train: training options of meta-trained heads.
        factors: item factors of meta-trained heads; None for the default.
        heads: heads of the evaluation.
        objectives: objectives of the pretraining.
        reporter: shows progress.
    """
    values: Values = {}
    tried: dict[str, list[Any]] = {}
    said: dict[str, list[dict[str, list[float]]]] = {objective: [] for objective in objectives}
    users, seeds = [], []
    for base in configs:
        world = frozen.world_of(base)
        config = Config(data=base.data, episodes=base.episodes, train=train, seed=base.seed)
        config = dataclasses.replace(config, factors=factors or config.factors)
        config = dataclasses.replace(config, encoder=dataclasses.replace(base.encoder, train="no"))
        asked = frozen.questions(world, config)
        users.append(frozen.users_of(asked))
        seeds.append(np.full(len(users[-1]), base.seed))
        for name in (UNTOUCHED, *objectives):
            reporter.note(f"seed {base.seed}, {name}")
            own, path = folder / f"{base.seed}" / name, base.encoder.path
            if name != UNTOUCHED:
                found, losses = pretrained(
                    dataclasses.replace(base, objective=cast("Objective", name)), own / "pretraining", reporter
                )
                path = str(found)
                said[name].append(losses)
            encoder = encoders.load(path)
            chosen = config.encoder
            if "ridge" in heads:
                table = encoders.encode_table(
                    encoder,
                    world.data.items.texts,
                    pooling=chosen.pooling,
                    max_length=chosen.max_length,
                    normalise=True,
                )
                tried.setdefault(name, []).append(frozen.ridge(world, table, asked))
            if "meta-trained" in heads:
                run = dataclasses.replace(config, encoder=dataclasses.replace(chosen, path=path))
                for part, judged in frozen.meta_trained(world, encoder, run, own / "run", asked, reporter).items():
                    values.setdefault(("meta-trained", part, name), []).append(judged)
    penalties = {}
    for name, seeds_tried in tried.items():
        for part in frozen.PARTS:
            penalties[part, name], values["ridge", part, name] = frozen.chosen(seeds_tried, part)
    facts = {"pretraining": dataclasses.asdict(configs[0]), "seeds": [base.seed for base in configs]}
    rows = _compared(values, penalties, np.concatenate(users), np.concatenate(seeds), facts)
    return rows + _judged(said)


def _compared(
    values: Values, penalties: Mapping[Any, Any], users: np.ndarray, seeds: np.ndarray, facts: Mapping[str, Any]
) -> list[harness.Row]:
    """Compare every checkpoint with the untouched one, with the interval of the difference."""
    rows = []
    for (head, part, name), found in values.items():
        if name == UNTOUCHED:
            continue
        for measured in frozen.METRICS:
            ours, against = ([v[measured] for v in way] for way in (found, values[head, part, UNTOUCHED]))
            more: dict[str, Any] = {}
            if head == "ridge":
                more["penalties"] = {"untouched": penalties[part, UNTOUCHED], name: penalties[part, name]}
            more |= {} if rows else facts
            rows.append(variants.paired_row(f"{head}, {part} items", name, measured, ours, against, users, seeds, more))
    return rows


def _judged(said: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> list[harness.Row]:
    """Perplexities and contrastive losses before and after, as means over seeds (geometric for perplexities)."""
    rows = []
    for name, seeds in said.items():
        for measured in seeds[0] if seeds else ():
            both = np.array([seed[measured] for seed in seeds])
            mean = np.exp(np.log(both).mean(axis=0)) if measured.startswith("perplexity") else both.mean(axis=0)
            before, after = map(float, mean)
            ratio = dict.fromkeys(("median", "low", "high"), before / after)
            rows.append(harness.Row("held out of pretraining", name, measured, after, before, ratio))
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--runs", type=Path, help="folder of the runs, which are continued; by default a new folder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="of each pretraining")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS)
    arguments = parser.parse_args()
    from metarec_jax.core.console import make_reporter

    folder = arguments.runs or Path(tempfile.mkdtemp(prefix="metarec-pretraining-"))
    configs = [standard(seed, arguments.steps) for seed in range(arguments.seeds)]
    rows = measure(configs, folder, preset("movielens-100k").train, heads=arguments.heads, reporter=make_reporter())
    if arguments.json:
        harness.write(rows, arguments.json)
    harness.show(rows)


if __name__ == "__main__":
    main()
