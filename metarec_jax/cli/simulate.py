"""`metarec simulate`: test users who click and rate, for a running service."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from metarec_jax.cli.arguments import check_range, parse, prepare, print_json
from metarec_jax.serving.options import SimulateArguments


def run(arguments: Sequence[str]) -> int:
    """Run `metarec simulate` and return the exit status."""
    chosen = parse(SimulateArguments, "simulate", arguments)
    for option, value, least, most in (
        ("--users", chosen.users, 0, 10_000_000),
        ("--lists", chosen.lists, 1, 100_000),
        ("--k", chosen.k, 1, 100_000),
        ("--start", chosen.start, 0, 100_000),
        ("--seed", chosen.seed, 0, 2**31 - 1),
    ):
        check_range(option, value, least, most)
    reporter = prepare()
    from metarec_jax.serving import simulate as simulation
    from metarec_jax.train import catalogue, run_folder

    run = run_folder.open_run(Path(chosen.run))
    people = simulation.held_out(run.config)
    habits = simulation.Habits(chosen.start, chosen.lists, chosen.k)
    with contextlib.closing(simulation.Client(chosen.address, os.environ.get("METAREC_TOKEN"))) as client:
        counts = simulation.simulate(
            client,
            people[: chosen.users or len(people)],
            catalogue.load(run).scale,
            habits=habits,
            seed=chosen.seed,
            reporter=reporter,
        )
    print_json(counts)
    return 0
