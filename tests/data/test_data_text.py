"""Texts of items and users."""

import pytest

from metarec_jax.data.text import describe_user, item_text, natural_title, profile_text, title_year


@pytest.mark.parametrize(
    ("title", "natural"),
    [
        ("Quiet Harbour, The (1995)", "The Quiet Harbour (1995)"),
        ("Grand Day, A (1992)", "A Grand Day (1992)"),
        ("Été, L' (1970)", "L'Été (1970)"),
        ("Blue Door, The (Porte bleue, La) (1988)", "The Blue Door (La Porte bleue) (1988)"),
        ("Door (a.k.a. Blue Door, The) (1988)", "Door (a.k.a. The Blue Door) (1988)"),
        ("Good, The Bad and The Odd, The (1966)", "The Good, The Bad and The Odd (1966)"),
        ("Harbour, The", "The Harbour"),
        ("Corina, Corina (1994)", "Corina, Corina (1994)"),
        ("Maybe, Maybe Not (1994)", "Maybe, Maybe Not (1994)"),
        ("Theatre, Thebes (1994)", "Theatre, Thebes (1994)"),
        ("20,000 Miles (1954)", "20,000 Miles (1954)"),
        (" Seven Kites (1988) ", "Seven Kites (1988)"),
        ("", ""),
    ],
)
def test_articles_come_first(title, natural):
    assert natural_title(title) == natural
    assert natural_title(natural) == natural


@pytest.mark.parametrize(
    ("title", "year"),
    [
        ("Seven Kites (1988)", "1988"),
        ("Seven Kites (1988) (V)", "1988"),
        ("Seven Kites (1988) ", "1988"),
        ("Seven Kites (2006-2011)", "2006"),
        ("Seven Kites (2006– )", "2006"),
        ("2001 Kites", ""),
        ("Kites (1988) again", ""),
        ("", ""),
    ],
)
def test_year_of_a_title(title, year):
    assert title_year(title) == year


def test_item_text_without_a_title_is_empty():
    assert item_text("", ["Drama"]) == ""
    assert item_text("Seven Kites (1988)", []) == "Seven Kites (1988)."


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        (("24", "M", "writer"), "A 24 year old man, writer."),
        (("18", "F", "none"), "An 18 year old woman."),
        (("11", "F", "student"), "An 11 year old woman, student."),
        (("8", "M", ""), "An 8 year old man."),
        (("81", "", "retired"), "An 81 year old person, retired."),
        (("45 to 49", "M", "other"), "A man aged 45 to 49."),
        (("", "F", "lawyer"), "A woman, lawyer."),
    ],
)
def test_profiles(profile, text):
    assert profile_text(*profile) == text


def test_a_description_names_what_there_is():
    assert describe_user([], ["Heat"]) == "Dislikes Heat."
    assert describe_user(["Heat"], []) == "Likes Heat."
