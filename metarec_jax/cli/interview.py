"""`metarec interview`: ask a new user for the most informative ratings, and recommend."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from metarec_jax.cli.arguments import (
    ItemCount,
    Json,
    Ratings,
    TrainedRun,
    check_range,
    parse,
    place,
    prepare,
    print_json,
)
from metarec_jax.cli.recommend import parse_rating, print_rated, score_title
from metarec_jax.core.console import print_grid, printable


@dataclasses.dataclass(frozen=True)
class InterviewArguments:
    """Ask a new user for the most informative ratings, one at a time, then recommend.

    Answers are read from the terminal, or line by line from a pipe. The run must have --factors.rank above 0.
    """

    run: TrainedRun
    questions: int = 5
    """Number of answers. Items that the user does not know are not counted."""
    rate: Ratings = ()
    """A rating that is already known."""
    among: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TITLE")] = ()
    """An item that the user knows (for example has bought). Then no other items are asked about."""
    k: ItemCount = 10
    """Number of items that are recommended at the end."""
    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the questions, as if each were answered, and ask none of them."""
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec interview` and return the exit status."""
    chosen = parse(InterviewArguments, "interview", arguments)
    known = [parse_rating(text) for text in chosen.rate]
    check_range("--questions", chosen.questions, 1, 10_000)
    reporter = prepare()
    from metarec_jax.recommender.interview import converse
    from metarec_jax.recommender.recommender import Rated, Recommender

    recommender = Recommender.load(place(chosen.run), report=reporter.note)
    history = [Rated(*pair) for pair in known]
    if chosen.list:
        questions = recommender.interview(recommender.adapt(history), chosen.questions, among=chosen.among)
        if chosen.json:
            trees = [{"id": q.id, "title": q.title, "known": q.known, "gain": q.gain} for q in questions]
            print_json({"run": chosen.run, "questions": trees})
        else:
            rows = [[str(n), q.title, f"{q.known:.0%}", f"{q.gain:.4f}"] for n, q in enumerate(questions, start=1)]
            print_grid("Questions", ["", "item", "known", "gain"], rows, numbers=[0, 2, 3])
        return 0
    told = converse(recommender, chosen.questions, _read_line, reporter.note, history, chosen.among)
    found = recommender.recommend(told.state, chosen.k)
    rated = [(item, recommender.title(item), rating) for item, rating in told.rated]
    if chosen.json:
        print_json(
            {
                "run": chosen.run,
                "rated": [{"item": item, "title": title, "rating": rating} for item, title, rating in rated],
                "unknown": told.unknown,
                "recommended": [item._asdict() for item in found],
            }
        )
        return 0
    print_rated([(title, rating) for _, title, rating in rated])
    rows = [[str(n), item.title, f"{item.score:.2f}"] for n, item in enumerate(found, start=1)]
    print_grid("Recommended", ["", "item", score_title(recommender)], rows, numbers=[0, 2])
    return 0


def _read_line(prompt: str) -> str:
    """Read a line of stdin; the prompt goes to stderr, so that stdout has the result alone."""
    print(printable(prompt), end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
