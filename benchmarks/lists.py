"""Lists over the whole catalogue: the baselines and the closed form of many seeds, without training a network.

python -m benchmarks.lists --protocol strong-generalisation --data.kind click --seeds 10 --out DIR [--json OUT]

It takes the options of `metarec evaluate`, and writes the same tables to --out; --json also writes them to one file.
The metrics of a seed that is in --out are read. `--factors.rank 0` leaves the closed form out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from metarec_jax.cli import evaluate as command
from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config
from metarec_jax.core.atomic_files import make_folder, write_text
from metarec_jax.core.environment import environment
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.evaluation import list_record, report
from metarec_jax.evaluation.budget import FULL, Budget
from metarec_jax.evaluation.evaluate import about_of
from metarec_jax.evaluation.list_answers import judge_all
from metarec_jax.evaluation.list_methods import prepare
from metarec_jax.evaluation.list_record import SeedLists
from metarec_jax.evaluation.list_results import publish_lists
from metarec_jax.evaluation.methods import DEFINITIONS, Method, closed_form, without_inner_loop
from metarec_jax.evaluation.table import Table
from metarec_jax.train.build import build


def measure(
    config: Config, seeds: Iterable[int], folder: Path, *, budget: Budget = FULL, reporter: Reporter = QUIET
) -> dict[str, Table]:
    """Judge the lists of the baselines and of the closed form.

    Args:
        config: config of the closed form, and of the protocol.
        seeds: seeds of the divisions.
        folder: where the metrics of each seed, and the tables, are written.
        budget: candidates that are tried on validation users, and resamples of test users.
        reporter: shows progress.

    Returns:
        The table of each scenario, by its name.

    Raises:
        MetarecError: the protocol does not ask for lists.
    """
    found = [_of_seed(dataclasses.replace(config, seed=seed), folder, budget, reporter) for seed in seeds]
    return publish_lists(found, folder, budget)


def _of_seed(config: Config, folder: Path, budget: Budget, reporter: Reporter) -> SeedLists:
    path = make_folder(folder / f"seed-{config.seed}") / list_record.LISTS
    digest = hashlib.sha256(f"{to_json(config)}{budget}".encode()).hexdigest()
    known = list_record.load(path)
    if known is not None and known.about["digest"] == digest:
        return known
    experiment = build(without_inner_loop(config), reporter=reporter)
    if experiment.division.candidates is None:
        raise MetarecError(f"protocol {config.split.kind!r} asks for no lists: use --protocol strong-generalisation")
    networks = {name: Method(function, {}, DEFINITIONS[name]) for name, function in closed_form(experiment).items()}
    about = {"digest": digest, **about_of(experiment)}
    found = judge_all(experiment, prepare(experiment), networks, {}, about, budget, reporter)
    list_record.save(found, path)
    return found


def main(arguments: Sequence[str]) -> None:
    """The command line."""
    given, written = list(arguments), None
    if "--json" in given:
        place = given.index("--json")
        written = Path(given[place + 1])
        del given[place : place + 2]
    wanted = command.requested(given)
    from metarec_jax.core.console import make_reporter

    tables = measure(wanted.config, wanted.seeds, wanted.folder, reporter=make_reporter())
    if written is not None:
        write_text(written, report.several_to_json(tables, environment()))
    report.print_tables(tables, everything=wanted.everything)


if __name__ == "__main__":
    main(sys.argv[1:])
