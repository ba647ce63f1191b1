"""`metarec feedback`: evaluate clicks and ratings of a service's users."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarec_jax.cli.arguments import Folder, Json, parse, prepare, print_json
from metarec_jax.core.errors import MetarecError


@dataclasses.dataclass(frozen=True)
class FeedbackArguments:
    """Evaluate the log of a service: CTR, precision, nDCG of clicks, two models compared, off-policy estimates.

    Every figure has a 95 % confidence interval over users (metarec_jax.serving.analytics defines them).
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder that was served."""
    store: Folder = ""
    """Folder of the feedback. "" is RUN/service."""
    target: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="RUN")] = ()
    """Estimate the CTR that the lists of another run would have had. Needs lists that were drawn at
    random (metarec serve --explore)."""
    export: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Write the log as interactions for `metarec train`: a .csv or .parquet file, with the items in a second file."""
    merge: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --export: also write the interactions that the run was trained on, ahead of the new ones."""
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec feedback` and return the exit status."""
    chosen = parse(FeedbackArguments, "feedback", arguments)
    if chosen.merge and not chosen.export:
        raise MetarecError("--merge changes what --export writes: give a file with --export, or leave out --merge")
    reporter = prepare()
    from metarec_jax.serving import feedback
    from metarec_jax.serving.analytics import to_tree

    run = Path(chosen.run)
    store = Path(chosen.store) if chosen.store else run / "service"
    if chosen.export:
        rows, items = feedback.export(run, store, Path(chosen.export), merge=chosen.merge)
        reporter.note(
            f"{rows:,} interactions: train with --data.source table --data.path {chosen.export} "
            f"--data.items-path {items} --data.columns.item-text text"
        )
    found = feedback.judge(run, store, [Path(target) for target in chosen.target])
    if chosen.json:
        print_json(to_tree(found))
    else:
        feedback.show(found)
    return 0
