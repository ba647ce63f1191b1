"""Texts of items and users, for the encoder and for display.

Titles of all sources get one form, "The Shawshank Redemption (1994)": MovieLens moves a leading article behind a comma
for sorting, unlike the texts that BERT was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ARTICLES = (
    *("The", "A", "An"),  # English
    *("La", "Le", "Les", "L'", "Un", "Une"),  # French
    *("Il", "Lo", "I", "Gli", "Una"),  # Italian
    *("El", "Los", "Las"),  # Spanish
    *("O", "Os", "As"),  # Portuguese
    *("Der", "Die", "Das", "Ein", "Eine"),  # German
    *("Det", "Den", "De", "Het"),  # Scandinavian, Dutch
)
_INVERTED = re.compile(rf"^(\s*(?:a\.?k\.?a\.? )?)(\S.*), ({'|'.join(_ARTICLES)})(\s*)$")
_YEAR = re.compile(r"\((\d{4})(?:\s*[-–]\s*(?:\d{4})?\s*)?\)(?:\s*\([A-Z]+\))?\s*$")


def natural_title(title: str) -> str:
    """Move the articles of a title to the front, including those of other titles in brackets.

    Example:
        >>> natural_title("Big Blue, The (Grand bleu, Le) (1988)")
        'The Big Blue (Le Grand bleu) (1988)'
    """
    parts = re.split(r"([()])", title)
    return "".join(_INVERTED.sub(_article_first, part) for part in parts).strip()


def _article_first(match: re.Match[str]) -> str:
    before, name, article, after = match.groups()
    return f"{before}{article}{'' if article.endswith(chr(39)) else ' '}{name}{after}"


def title_year(title: str) -> str:
    """The year at the end of `title`, as four digits, or "".

    Example:
        >>> title_year("Toy Story (1995)"), title_year("1984"), title_year("Some Series (2006–2011)")
        ('1995', '', '2006')
    """
    match = _YEAR.search(title)
    return match.group(1) if match else ""


def item_text(title: str, genres: Sequence[str] = ()) -> str:
    """The text of a film that the encoder reads.

    Args:
        title: title of the film.
        genres: genres of the film.

    Returns:
        The text; "" for a film without a title.

    Example:
        >>> item_text("Toy Story (1995)", ["Animation", "Children's", "Comedy"])
        "Toy Story (1995). Animation, Children's, Comedy."
    """
    if not title:
        return ""
    return f"{title}. {', '.join(genres)}." if genres else f"{title}."


def profile_text(age: str, gender: str, occupation: str) -> str:
    """The text of a user's profile that the encoder reads.

    Args:
        age: years ("24"), or a range as words ("25 to 34", "under 18", "56 or over").
        gender: "M", "F", or anything else where it is unknown.
        occupation: occupation in words; "", "other" and "none" are left out.

    Returns:
        One sentence.

    Example:
        >>> profile_text("24", "M", "technician")
        'A 24 year old man, technician.'
        >>> profile_text("25 to 34", "F", "other")
        'A woman aged 25 to 34.'
    """
    person = {"M": "man", "F": "woman"}.get(gender, "person")
    if age.isdigit():
        # Eight, eleven, eighteen and the eighties begin with a vowel.
        text = f"{'An' if age in ('11', '18') or age.startswith('8') else 'A'} {age} year old {person}"
    elif age:
        text = f"A {person} aged {age}"
    else:
        text = f"A {person}"
    return f"{text}, {occupation}." if occupation not in ("", "other", "none") else f"{text}."


def beginning(text: str, most: int = 80) -> str:
    """The beginning of a text, as a title.

    Args:
        text: the text.
        most: greatest number of characters.

    Returns:
        Its first sentence or line, truncated; "" for a blank text.

    Example:
        >>> beginning("A story. It goes on.")
        'A story'
    """
    first = re.split(r"(?<=[.!?])\s|\n", text.strip(), maxsplit=1)[0].strip().rstrip(".")
    return first if len(first) <= most else first[: most - 1].rstrip() + "…"


def describe_user(liked: Sequence[str], disliked: Sequence[str]) -> str:
    """Describe a user by titles of the support set.

    Args:
        liked: titles that the user rated high.
        disliked: titles that the user rated low.

    Returns:
        The description.

    Example:
        >>> describe_user(["Toy Story (1995)", "Babe (1995)"], ["Heat (1995)"])
        'Likes Toy Story (1995); Babe (1995). Dislikes Heat (1995).'
        >>> describe_user([], [])
        'Someone whose taste is not known yet.'
    """
    sentences = [
        f"{verb} {'; '.join(titles)}." for verb, titles in (("Likes", liked), ("Dislikes", disliked)) if titles
    ]
    return " ".join(sentences) or "Someone whose taste is not known yet."
