"""Check of regular expressions that users give, so that matching one ends soon."""

from __future__ import annotations

import re

from metarec_jax.core.errors import MetarecError, shown

MOST_CHARACTERS, MOST_REPEATS = 200, 4
"""Greatest length of a pattern, and greatest number of its quantifiers without a small bound."""
_LITERALS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPEAT = re.compile(r"[*+{]")


def check_pattern(option: str, pattern: str) -> None:
    """Refuse a pattern that is no regular expression, or that may backtrack for longer than anybody waits.

    A repeated group may take time exponential in the length of a name, and n repeats of a character its n-th power.

    Args:
        option: name of the option, for messages.
        pattern: a regular expression.

    Raises:
        MetarecError: the pattern is no regular expression, is too long, repeats a group, or has too many repeats.

    >>> check_pattern("updater.adapted", "(hidden|output)/.*")
    """
    if len(pattern) > MOST_CHARACTERS:
        raise MetarecError(
            f"{option}: {shown(pattern)} has more than {MOST_CHARACTERS} characters; give several patterns"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise MetarecError(f"{option}: {shown(pattern)} is not a regular expression: {str(error)[:100]}") from error
    plain = _LITERALS.sub("x", pattern)
    if _REPEATED_GROUP.search(plain) or len(_REPEAT.findall(plain)) > MOST_REPEATS:
        raise MetarecError(
            f"{option}: {shown(pattern)} repeats a group, or has more than {MOST_REPEATS} repeats, so that matching it "
            "may not end; give several simpler patterns, such as 'hidden/.*' 'output/.*'"
        )
