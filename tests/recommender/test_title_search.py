import contextlib
import sys
import time

import numpy as np
import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Items
from metarec_jax.recommender import title_search
from metarec_jax.recommender.title_names import words
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


def many_titles(count: int, seed: int = 0) -> tuple[str, ...]:
    """Titles of one to four made-up words and a year; words have other frequencies, and some titles are equal."""
    rng = np.random.default_rng(seed)
    made = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lon", "marta", "tic", "ver", "sun", "ostra")]
    words = np.array([*made, "Étoile", "Öl", "千と千尋の神隠し", "Война", "देव", "l'Île"])
    lengths = rng.integers(1, 5, count)
    chosen = np.split(words[(rng.zipf(1.2, lengths.sum()) - 1) % len(words)], np.cumsum(lengths)[:-1])
    return tuple(f"{' '.join(own)} ({year})" for own, year in zip(chosen, rng.integers(1930, 2020, count)))


def index_of(titles: tuple[str, ...], popularity: np.ndarray) -> TitleIndex:
    """An index of titles whose ids are their rows."""
    return TitleIndex(Items(tuple(map(str, range(len(titles)))), titles, titles), popularity)


@pytest.fixture(scope="module")
def many() -> tuple[tuple[str, ...], np.ndarray, TitleIndex]:
    """More titles than are compared with a misspelt one: titles, popularity, index."""
    titles = many_titles(4000)
    popularity = np.random.default_rng(1).integers(0, 50, len(titles))
    return titles, popularity, index_of(titles, popularity)


@pytest.mark.parametrize(
    "text",
    ["b", "balon", "ba ga", "BALON 19", "1987", "etoile", "ÖL", "千と", "война b", "l'i", "l", "ile", "देव", "balonx"],
)
def test_words_are_found_by_their_beginnings_as_by_a_scan(many, text):
    titles, popularity, index = many
    wanted = words(text).split()
    starts = [f" {words(title)}" for title in titles]
    rows = [row for row, of_row in enumerate(starts) if all(f" {word}" in of_row for word in wanted)]
    scanned = sorted(rows, key=lambda row: (-popularity[row], row))[:20]
    assert index.search(text, 20) == (scanned or index.nearest(text, 20))
    assert bool(scanned) == (text != "balonx")


def test_without_words_the_most_rated_items_are_found(many):
    _, popularity, index = many
    assert index.search(" - ", 30) == sorted(range(len(popularity)), key=lambda row: (-popularity[row], row))[:30]


def misspelt(title: str, rng: np.random.Generator) -> str:
    """A title without its year, and with a letter left out, doubled, changed, or swapped with the next one."""
    name = title[:-7]
    at = int(rng.integers(len(name)))
    here, rest = name[at], name[at + 1 :]
    kinds = ["", here + here, "q", rest[:1] + here]
    kind = int(rng.integers(4))
    return name[:at] + kinds[kind] + (rest[1:] if kind == 3 else rest)


def test_the_nearest_of_many_titles_is_that_of_a_comparison_with_all(many, monkeypatch):
    titles, _, index = many
    rng = np.random.default_rng(2)
    names = [misspelt(titles[row], rng) for row in rng.integers(len(titles), size=60)]
    found = [index.nearest(name)[0] for name in names]
    monkeypatch.setattr(title_search, "_COMPARED", len(titles))
    compared = [index.nearest(name)[0] for name in names]
    assert np.mean([titles[a] == titles[b] for a, b in zip(found, compared)]) >= 0.98


@pytest.mark.parametrize(
    ("name", "part"), [("千尋の神", "千と千尋の神隠し"), ("Воина", "Война"), ("etoille", "Étoile")]
)
def test_parts_and_misspellings_in_other_scripts_are_near(many, name, part):
    titles, _, index = many
    assert part in titles[index.nearest(name)[0]]


def test_nothing_alike_is_answered_with_something(many):
    _, _, index = many
    for name in ("zzzz", "!", "x" * 5000):
        assert len(index.nearest(name)) == 5


def test_items_that_are_added_one_by_one_are_found_at_once_and_in_few_parts():
    titles = many_titles(300)
    popularity = np.random.default_rng(1).integers(0, 50, len(titles))
    index = index_of(titles[:100], popularity[:100])
    for count in range(101, len(titles) + 1):
        index.add(Items(tuple(map(str, range(count))), titles[:count], titles[:count]), popularity[:count])
        assert count - 1 in index.search(titles[count - 1], count)
        assert titles[index.find(titles[count - 1]).row] == titles[count - 1]
    whole = index_of(titles, popularity)
    for text in ("", "b", "ba ga", "etoile", "balonn", "19"):
        assert index.search(text, 40) == whole.search(text, 40)
    assert len(index._parts) <= 10


def test_sixty_thousand_titles_are_searched_without_a_scan():
    titles = many_titles(60_000)
    index = index_of(titles, np.zeros(60_000))
    index.prepare()
    for name in (titles[777][:-8] + "x", "b", "", "qqqq", titles[777]):
        started = time.process_time()
        assert index.search(name, 20)
        assert time.process_time() - started < 0.2


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
