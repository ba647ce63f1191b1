"""An interview that asks for ratings of one item at a time, each chosen given the answers so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.history import Rated
from metarec_jax.recommender.recommender import Recommender, UserState

STOP = ("q", "quit", "stop")
"""Answers that end the interview."""


class InterviewResult(NamedTuple):
    """The result of an interview.

    Attributes:
        rated: all ratings, oldest first.
        unknown: items that the user did not know, as "id:" and id.
        state: state of the user after all answers.
    """

    rated: list[Rated]
    unknown: list[str]
    state: UserState


def converse(
    recommender: Recommender,
    wanted: int,
    read: Callable[[str], str],
    say: Callable[[str], None],
    rated: list[Rated],
    among: Sequence[str | int] = (),
) -> InterviewResult:
    """Ask until `wanted` items are rated, or the user stops.

    Args:
        recommender: recommender of a run with item factors.
        wanted: number of ratings to ask for.
        read: shows a prompt and returns the answer; raises EOFError at the end of the input.
        say: shows a line.
        rated: ratings that are already known.
        among: the only items to ask about, as for `Recommender.interview`.

    Returns:
        All ratings, unknown items, and the state of the user.

    Raises:
        MetarecError: the run has no item factors, or `rated` is not valid.
    """
    scale = recommender.catalogue.scale
    levels = "1 (yes) or 0 (no)" if scale.kind == "click" else f"{scale.low:.7g} to {scale.high:.7g}"
    rated, unknown = list(rated), []
    state = recommender.adapt(rated)
    say(f"Rate {levels}. Enter: I do not know it. q: enough.")
    asked = len(rated)
    while len(rated) - asked < wanted and (questions := recommender.interview(state, 1, unknown, among)):
        name, title = f"id:{questions[0].id}", questions[0].title
        try:
            answer = read(f"{len(rated) - asked + 1} of {wanted}: {title}? ").strip()
        except EOFError:
            break
        if answer.lower() in STOP:
            break
        if not answer:
            unknown.append(name)
            continue
        try:
            state = recommender.adapt([*rated, Rated(name, _number(answer))])
        except MetarecError as error:
            say(str(error).replace(repr(name), repr(title)))
            continue
        rated.append(Rated(name, float(answer)))
    return InterviewResult(rated, unknown, state)


def _number(answer: str) -> float:
    try:
        return float(answer)
    except ValueError:
        raise MetarecError(f"{answer!r} is not a number") from None
