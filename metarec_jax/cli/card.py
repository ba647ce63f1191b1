"""`metarec card`: print the model card of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from metarec_jax.cli.arguments import Json, TrainedRun, parse, place, print_json
from metarec_jax.core.jax_settings import import_jax


@dataclasses.dataclass(frozen=True)
class CardArguments:
    """Print the model card of a run, in Markdown: data and its licence, split, metrics with intervals, limits, privacy,
    and how to reproduce it.

    It is read from the run folder, to which nothing is written. Training and `metarec evaluate RUN` write it as
    RUN/card.md.
    """

    run: TrainedRun
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec card` and return the exit status."""
    chosen = parse(CardArguments, "card", arguments)
    import_jax()
    from metarec_jax.train import card, run_folder
    from metarec_jax.train.card_text import to_markdown

    found = card.collect(run_folder.open_run(place(chosen.run)))
    if chosen.json:
        print_json(found)
    else:
        print(to_markdown(found), end="")
    return 0
