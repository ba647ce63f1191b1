"""`metarec evaluate`: compare a run, or a protocol over several seeds, with the baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import tyro

from metarec_jax.cli.arguments import (
    DEFAULT_CONFIG,
    RUNS,
    ConfigFile,
    ConfigOptions,
    Folder,
    Json,
    Preset,
    check_range,
    choices,
    early_option,
    named_paths,
    parse,
    place,
    prepare,
    resumable,
    run_name,
    starting_config,
)
from metarec_jax.config.data import ending_at, reaching
from metarec_jax.config.paths import absolute, with_paths
from metarec_jax.config.run import CLICK_LEAST, CLICK_QUERY, CLICK_SUPPORT, DEFAULT_PRESET, Config
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.environment import environment
from metarec_jax.core.errors import MetarecError
from metarec_jax.evaluation.budget import FULL, Budget
from metarec_jax.evaluation.metric_sets import MODES, mode

if TYPE_CHECKING:
    from metarec_jax.train.run_folder import Run

All = Annotated[
    tyro.conf.FlagCreatePairsOff[bool],
    tyro.conf.arg(help="Print all methods and metrics, not only the headline ones."),
]


class Protocol(NamedTuple):
    """An evaluation protocol of the literature.

    Attributes:
        split: how rows are divided: a name of `metarec_jax.core.kinds.SPLITS`.
        fixed: episode options that belong to the protocol.
        first: episode options that the command line may change.
        support: greatest support.
        fixes_support: whether the command line may not change it.
    """

    split: str
    fixed: Mapping[str, Any]
    first: Mapping[str, Any]
    support: int = 90
    fixes_support: bool = False


_NEW_USERS = {"min_ratings": 13, "max_ratings": 100, "query": 10, "order": "random"}
_CLICKS = {"min_ratings": CLICK_LEAST, "max_ratings": 0, "query": CLICK_QUERY}
_EVERYONE = {"max_ratings": 0, "query": 10, "order": "random"}
PROTOCOLS: Mapping[str, Protocol] = {
    "melu": Protocol("melu", _NEW_USERS | {"test": 0.2}, {}, fixes_support=True),
    "recbole-metarec": Protocol("users", _NEW_USERS | {"validation": 0.1, "test": 0.1}, {}, fixes_support=True),
    "tallrec": Protocol("tallrec", _EVERYONE, {"min_ratings": 13}),
    "few-shot": Protocol("few-shot", _EVERYONE, {"min_ratings": 13, "lengths": "varied"}, support=20),
    "time": Protocol("time", _EVERYONE, {"min_ratings": 13}),
    "strong-generalisation": Protocol("strong-generalisation", {}, _CLICKS, support=CLICK_SUPPORT),
    "next-items": Protocol("next-items", {}, _CLICKS | {"query": 1, "order": "time"}, support=CLICK_SUPPORT),
    "cold-items": Protocol("cold-items", {}, _CLICKS, support=CLICK_SUPPORT),
}
"""The values of --protocol."""


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Compare with the baselines: a trained run, or configs that are trained for each seed where RUN is left out.

    Tables (Markdown, JSON) and plots are written to the run folder, or to --out.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ""
    """Run folder of a finished training. "" trains new runs with the options below."""
    seeds: int = 0
    """Number of seeds. The first is the seed of RUN; runs with the other seeds are trained. 0 is 1, or 20 with
    --protocol."""
    protocol: Annotated[str, choices(PROTOCOLS)] = ""
    """Protocol of the literature, which fixes training rows, users, support and query (docs/protocols.md)."""
    metrics: Annotated[str, choices(MODES)] = "own"
    """Definitions of the metrics: this package's, or those of published code, to compare with published figures."""
    preset: Preset = DEFAULT_PRESET
    config_file: ConfigFile = ""
    part: Annotated[str, tyro.conf.arg(metavar="I/N")] = ""
    """Train and judge with part I of N of the seeds, 1/N to N/N, without tables; every part is a process with the same
    other options. The command without --part then makes the tables."""
    out: Folder = ""
    """Folder of tables and plots. An evaluation that was begun there is continued. "" is the run folder, or
    runs/PROTOCOL."""
    all: All = False
    json: Json = False
    config: ConfigOptions = DEFAULT_CONFIG


def starting_evaluation(arguments: Sequence[str]) -> tuple[str, Config]:
    """`starting_config` of `metarec evaluate`, where --protocol sets options, too.

    Raises:
        MetarecError: as for `starting_config`; or the protocol is unknown.
    """
    name, config = starting_config("evaluate", arguments)
    protocol = early_option("evaluate", arguments, "--protocol")
    if not protocol:
        return name, config
    if protocol not in PROTOCOLS:
        raise MetarecError(f"no protocol is called {protocol!r}; there are {', '.join(PROTOCOLS)}")
    split, fixed, first, support, _ = PROTOCOLS[protocol]
    buckets = ending_at(reaching(config.episodes.buckets, support), support)
    episodes = dataclasses.replace(config.episodes, buckets=buckets)
    return protocol, dataclasses.replace(
        config,
        split=dataclasses.replace(config.split, kind=split),
        episodes=dataclasses.replace(episodes, **{**first, **fixed}),
    )


def check_protocol(name: str, config: Config) -> None:
    """Refuse options that contradict a protocol.

    Args:
        name: name of the protocol.
        config: with all options.

    Raises:
        MetarecError: an option has another value than the protocol fixes.
    """
    split, fixed, _, support, fixes_support = PROTOCOLS[name]
    wanted = {"split.kind": split} | {f"episodes.{field}": value for field, value in fixed.items()}
    got = {"split.kind": config.split.kind} | {f"episodes.{field}": getattr(config.episodes, field) for field in fixed}
    for option, value in wanted.items():
        if got[option] != value:
            raise MetarecError(
                f"protocol {name} has {option} {value}, and not {got[option]}: leave out that option, or leave out "
                "--protocol"
            )
    if fixes_support and config.episodes.max_support != support:
        raise MetarecError(
            f"protocol {name} has a support of at most {support}, and not {config.episodes.max_support}: let "
            f"episodes.buckets end at {support}, or leave out --protocol"
        )


class Evaluation(NamedTuple):
    """An evaluation that a command line asks for.

    Attributes:
        config: config of the model.
        seeds: seeds, each with its own division, training and test.
        folder: folder of tables and plots.
        run: the finished run that is evaluated; None trains new runs.
        metrics: name of a set of metrics.
        everything: whether all methods and metrics are printed.
        json: whether JSON is printed.
        part: the part whose seeds these are, such as "3/8"; "" where they are all seeds.
    """

    config: Config
    seeds: range
    folder: Path
    run: Run | None
    metrics: str
    everything: bool
    json: bool
    part: str = ""


def run(arguments: Sequence[str]) -> int:
    """Run `metarec evaluate` and return the exit status."""
    return carry_out(requested(arguments))


def requested(arguments: Sequence[str]) -> Evaluation:
    """Read and check the arguments of `metarec evaluate`.

    Raises:
        MetarecError: an argument is not valid, or the run cannot be opened.
    """
    name, base = starting_evaluation(arguments)
    chosen = parse(EvaluateArguments, "evaluate", arguments, EvaluateArguments(config=base))
    check_range("--seeds", chosen.seeds or 1, 1, 10_000)
    config = chosen.config
    paths, more = named_paths(config, DEFAULT_CONFIG)
    if chosen.run and (chosen.protocol or more):
        raise MetarecError(
            f"{chosen.run} is evaluated with its own options, but for new places of data and encoder (--data.path, "
            "--encoder.path): leave out RUN to train runs with other options"
        )
    if chosen.protocol:
        check_protocol(chosen.protocol, config)
    mode(chosen.metrics)
    run = None
    if chosen.run:
        from metarec_jax.train import run_folder

        run = run_folder.open_run(place(chosen.run))
        config = run.config = absolute(with_paths(run.config, paths))
        run_folder.check_paths(run, "evaluate")
    folder = place(chosen.out) if chosen.out else run.folder if run else RUNS / run_name(name, config)
    seeds = chosen.seeds or (20 if chosen.protocol else 1)
    numbers = range(config.seed, config.seed + seeds)
    if chosen.part:
        from metarec_jax.recommender.batch_parts import parse_part

        part = parse_part(chosen.part)
        if part.of > seeds:
            raise MetarecError(f"--part {part}: there are {seeds} seeds to divide, so give at most {seeds} parts")
        numbers = numbers[part.number - 1 :: part.of]
    return Evaluation(
        config, numbers, folder, run, chosen.metrics, everything=chosen.all, json=chosen.json, part=chosen.part
    )


def carry_out(wanted: Evaluation, *, budget: Budget = FULL) -> int:
    """Evaluate, and print the tables.

    Args:
        wanted: the evaluation.
        budget: candidates that are tried on validation users, and resamples of test users.

    Returns:
        The exit status.
    """
    config, seeds, folder, run, metrics = wanted[:5]
    reporter = prepare(config)
    from metarec_jax.evaluation import report
    from metarec_jax.evaluation.evaluate import answer_seeds, evaluate
    from metarec_jax.privacy import accounting

    how = {"seeds": seeds, "folder": folder, "run": run, "metrics": metrics, "budget": budget, "reporter": reporter}
    with resumable(folder, reporter):
        if wanted.part:
            answer_seeds(config, **how)
            of = f"part {wanted.part}: {len(seeds)} seeds are trained and judged in {path_argument(folder)}"
            reporter.note(f"{of}; when all parts are, the same command without --part makes the tables")
            return 0
        tables = evaluate(config, **how)
    if run is not None and (warning := accounting.unfinished(run)):
        reporter.note(warning)
    if run is not None and (spent := accounting.read(run)) is not None:
        reporter.note(accounting.statement(spent))
    if wanted.json:
        print(report.several_to_json(tables, environment()), end="")
    else:
        report.print_tables(tables, everything=wanted.everything)
    plots = " and plots" if (folder / "plots").exists() else ""
    reporter.note(f"tables{plots}: {path_argument(folder)}")
    return 0
