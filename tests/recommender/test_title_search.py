import contextlib
import sys
import time

import numpy as np
import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.recommender.title_search import TitleIndex

TITLES = (
    "The Tin Moon (1971)",
    "Tin Roofs (1980)",
    "Café Zürich (1962)",
    "L'Étoile froide (1955)",
    "Rust & Honey (1999)",
    "Harbour (1948)",
    "Harbour (1996)",
    "Nine Doors (a.k.a. N1ne) (2003)",
    "The Long Ferry (La Longue Traversée) (1988)",
    "Old Maps (1990)",
    "Old Maps (1990)",
    "1984 Degrees",
    "Die Laughing (1980)",
    "Grandmother's Radio (1967)",
    "Winter Comedy",
    "A Wide Field",
)
POPULARITY = np.arange(len(TITLES)) + 1.0


@pytest.fixture(scope="module")
def index() -> TitleIndex:
    return TitleIndex(Items(tuple(str(100 + i) for i in range(len(TITLES))), TITLES, TITLES), POPULARITY)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("The Tin Moon (1971)", 0),
        ("  the tin moon  ", 0),
        ("Tin Moon, The (1971)", 0),
        ("tin moon, the", 0),
        ("TIN MOON 1971", 0),
        ("cafe zurich", 2),
        ("CAFÉ ZU\u0308RICH (1962)", 2),  # the same letter in two code points
        ("L'etoile froide", 3),
        ("Étoile froide, L'", 3),
        ("rust and honey", 4),
        ("Harbour (1948)", 5),
        ("harbour 1996", 6),
        ("Nine Doors", 7),
        ("n1ne", 7),
        ("long ferry", 8),
        ("longue traversee, la", 8),
        ("1984 degrees", 11),
        ("Die laughing", 12),
        ("Grandmothers radio", 13),
        ("grandmother’s radio (1967)", 13),
        ("Winter Comedy (2001)", 14),  # the catalogue does not know the year, so it cannot contradict
        ("wide field", 15),
        ("id:105", 5),
    ],
)
def test_variants_of_a_title_find_the_item(index, name, row):
    assert index.find(name).row == row
    assert index.find(name).note == ""


def test_every_title_finds_itself(index):
    for row, title in enumerate(TITLES):
        for written in (title, title.upper(), title.lower()):
            assert TITLES[index.find(written).row] == TITLES[row]


def test_the_item_with_most_ratings_has_a_shared_title_with_a_note(index):
    match = index.find("old maps")
    assert match.row == 10
    assert "2 items are called 'Old Maps (1990)'" in match.note
    assert "took id:110" in match.note
    assert "not id:109" in match.note


def test_an_ambiguous_title_is_refused_with_the_candidates(index):
    with pytest.raises(
        MetarecError, match=r"'harbour' could be Harbour \(1996\) \(id:106\); Harbour \(1948\) \(id:105\)"
    ):
        index.find("harbour")


def test_a_wrong_year_is_not_another_film(index):
    with pytest.raises(MetarecError, match=r"no item is called 'The Tin Moon \(1972\)'; .*The Tin Moon \(1971\)"):
        index.find("The Tin Moon (1972)")


@pytest.mark.parametrize(
    ("name", "near"),
    [("tinn moon", "The Tin Moon (1971)"), ("Harbor", "Harbour (1996)"), ("grandmother", "Grandmother's Radio (1967)")],
)
def test_an_unknown_title_is_answered_with_the_nearest_first(index, name, near):
    rows = index.nearest(name)
    assert TITLES[rows[0]] == near
    assert len(rows) == len({TITLES[row] for row in rows}) == 5
    with pytest.raises(MetarecError, match="no item is called") as caught:
        index.find(name)
    assert near in str(caught.value)


@pytest.mark.parametrize("name", ["", "   ", "!!!", "id:", "id:7", "é", "x" * 2000])
def test_nonsense_is_refused(index, name):
    with pytest.raises(MetarecError, match=r"title is empty|no item is called|no item has the id"):
        index.find(name)


def test_an_id_without_prefix_gets_a_hint(index):
    with pytest.raises(MetarecError, match="id:107 means the item of that id"):
        index.find("107")
    assert index.find_id("107").row == 7


def test_sixty_thousand_titles_are_searched_in_two_seconds():
    rng = np.random.default_rng(0)
    words = np.array([f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lon", "mar", "tic", "ver", "sun")])
    chosen = words[rng.integers(len(words), size=(60_000, 3))]
    titles = tuple(f"{' '.join(w)} ({year})" for w, year in zip(chosen, rng.integers(1930, 2020, 60_000)))
    big = TitleIndex(Items(tuple(map(str, range(60_000))), titles, titles), np.zeros(60_000))
    big.nearest("warm up")
    started = time.process_time()
    assert titles[big.nearest(titles[777][:-8] + "x")[0]][:8] == titles[777][:8]
    assert time.process_time() - started < 2.0


def test_a_search_while_an_item_is_added_finds_all_of_it_or_nothing():
    """A search between any two lines of `add`, as another thread may have it."""
    items = Items(("7", "8"), ("The Tin Moon (1971)", "Tin Roofs (1980)"), ("", ""))
    index, ids = TitleIndex(items, np.array([3, 4])), ("7", "8", "9")
    more = Items(ids, (*items.titles, "Bees (1999)"), ("", "", ""))
    seen = []

    def search(frame, event, argument):
        if frame.f_code.co_name not in ("add", "_enter"):
            return None
        found = {row for text in ("", "bee", "Bess", "xyz") for row in index.search(text, 5)}
        assert all(index.find_id(ids[row]).row == row for row in found)
        for name in ("Bees (1999)", "bees", "id:9", "Beez"):
            with contextlib.suppress(MetarecError):
                found.add(index.find(name).row)
        seen.append(2 in found)
        return search

    sys.settrace(search)
    try:
        index.add(more, np.array([3, 4, 0]))
    finally:
        sys.settrace(None)
    assert seen == sorted(seen)  # once it is found, it stays found
    assert len(seen) > 8
    assert not seen[0]
    assert index.search("bee", 5) == [index.find("bees").row] == [2]
