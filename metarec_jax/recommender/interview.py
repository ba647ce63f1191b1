"""An interview as a conversation: one question at a time, each chosen after the answers before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.history import Rated
from metarec_jax.recommender.recommender import Recommender, UserState

ENOUGH = ("q", "quit", "stop")


class Told(NamedTuple):
    """What came of it: the ratings given, oldest first, titles that were not known, and the user's state."""

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
) -> Told:
    """Asks until `wanted` items were rated, or the user has had enough.

    Args:
        recommender: of a run with beliefs about items.
        wanted: how many answers.
        read: shows a prompt and returns the line that was answered; raises EOFError where no more comes.
        say: shows a line.
        rated: what is known already.
        among: the only items to ask about, as for `Recommender.interview`.

    Raises:
        MetarecError: a run without beliefs, or `rated` cannot be read.
    """
    scale = recommender.catalogue.scale
    levels = "1 (yes) or 0 (no)" if scale.kind == "click" else f"{scale.low:g} to {scale.high:g}"
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
        if answer.lower() in ENOUGH:
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
    return Told(rated, unknown, state)


def _number(answer: str) -> float:
    try:
        return float(answer)
    except ValueError:
        raise MetarecError(f"{answer!r} is not a number") from None
