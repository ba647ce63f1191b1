"""Descriptions of users: the titles rated above and below the user's mean."""

import numpy as np
import pytest

from metarec_jax.data.describe import DISLIKED, LIKED, describe

TITLES = [f"Film {i}" for i in range(40)]


def told(items, ratings, middle=3.0):
    return describe(TITLES, np.array(items, np.int32), np.array(ratings, np.float32), middle=middle)


@pytest.mark.parametrize(
    ("items", "ratings", "text"),
    [
        ([], [], "Someone whose taste is not known yet."),
        ([7], [5], "Likes Film 7."),
        ([7], [1], "Dislikes Film 7."),
        ([7], [3], "Someone whose taste is not known yet."),
        ([7, 8], [4, 4], "Likes Film 7; Film 8."),
        ([7, 8, 9], [5, 1, 4], "Likes Film 7; Film 9. Dislikes Film 8."),
        # A rating of 4 below the user's mean is not liked.
        ([1, 2, 3, 4], [5, 5, 5, 4], "Likes Film 1; Film 2; Film 3. Dislikes Film 4."),
        # The best and the worst come first; titles rated at the user's mean are left out.
        ([1, 2, 3, 4, 5], [2, 3, 4, 1, 5], "Likes Film 5; Film 3. Dislikes Film 4; Film 1."),
    ],
)
def test_what_stands_out_is_named(items, ratings, text):
    assert told(items, ratings) == text


def test_where_all_ratings_are_equal_the_middle_of_the_scale_decides():
    assert told([1], [4], middle=3.0) == "Likes Film 1."
    assert told([1], [4], middle=5.0) == "Dislikes Film 1."
    assert told([1, 2], [1, 1], middle=0.5) == "Likes Film 1; Film 2."


def test_a_long_history_is_cut_to_the_most_liked_and_the_least():
    text = told(range(40), np.linspace(1, 5, 40))
    liked, disliked = text.split(". ")
    assert liked == "Likes " + "; ".join(TITLES[39 - i] for i in range(LIKED))
    assert disliked == "Dislikes " + "; ".join(TITLES[i] for i in range(DISLIKED)) + "."
