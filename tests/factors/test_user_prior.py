"""What is expected of tastes before ratings: found where it is there, and zero where it is not."""

import numpy as np
import pytest
from helpers import assert_each_close

from metarec_jax.factors.user_prior import expect_tastes

USERS, ITEMS, RANK, HIDDEN, RATED = 900, 40, 2, 3, 25
WEAK = {"choices": 20.0, "profile": 20.0}


def people(seed=0, by_profile=True, by_choice=True):
    """Ratings of users whose tastes follow their profile, and who choose what they like: (beliefs, rows, profiles)."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(ITEMS, RANK))
    profiles = rng.normal(size=(USERS, HIDDEN)).astype(np.float32)
    true = np.array([[0.8, 0.0], [0.0, -0.6], [0.0, 0.0]])
    tastes = rng.normal(size=(USERS, RANK)) + (profiles @ true if by_profile else 0)
    user = np.repeat(np.arange(USERS), RATED)
    liking = tastes @ factors.T if by_choice else np.zeros((USERS, ITEMS))
    chosen = np.argsort(-(liking + rng.gumbel(size=liking.shape)), axis=1)[:, :RATED]
    item = chosen.ravel()
    rating = np.einsum("nr,nr->n", tastes[user], factors[item]) + rng.normal(size=len(user)) * 0.5
    return (np.zeros(ITEMS), np.full(ITEMS, 0.05), factors), (user, item, rating + 0.0), profiles, true


def test_it_finds_what_profiles_say():
    beliefs, rows, profiles, true = people(by_choice=False)
    found = expect_tastes(beliefs, 0.2, *rows, profiles, choices=0.0, profile=20.0)
    assert_each_close(found["profile"]["kernel"], true, floor=0.12, because="of 900 users")
    assert not found["choice"]["kernel"].any()


def test_choices_tell_of_tastes_only_where_they_follow_them():
    following, at_random = (
        expect_tastes(beliefs, 0.2, *rows, profiles[:, :0], **WEAK)["choice"]["kernel"]
        for beliefs, rows, profiles, _ in (people(by_profile=False), people(by_profile=False, by_choice=False))
    )
    assert np.diag(following).min() > 0.5  # who rates much of a kind likes it
    assert np.abs(at_random).max() < 0.5 * np.diag(following).min()


@pytest.mark.parametrize("strength", [0.0, 1e9])
def test_they_can_be_left_out(strength):
    beliefs, rows, profiles, _ = people()
    found = expect_tastes(beliefs, 0.2, *rows, profiles, choices=strength, profile=strength)
    assert found["choice"]["kernel"].shape == (RANK, RANK)
    assert found["profile"]["kernel"].shape == (HIDDEN, RANK)
    assert max(np.abs(part["kernel"]).max() for part in found.values()) < 1e-4


def test_the_order_of_rows_and_the_names_of_users_do_not_matter():
    beliefs, (user, item, rating), profiles, _ = people()
    order = np.random.default_rng(2).permutation(len(user))
    moved = np.concatenate([np.zeros((7, HIDDEN), np.float32), profiles])
    one = expect_tastes(beliefs, 0.2, user, item, rating, profiles, **WEAK)
    two = expect_tastes(beliefs, 0.2, user[order] + 7, item[order], rating[order], moved, **WEAK)
    assert_each_close(
        one["choice"]["kernel"], two["choice"]["kernel"], tolerance=1e-4, floor=1e-6, because="sums in another order"
    )
    assert_each_close(
        one["profile"]["kernel"], two["profile"]["kernel"], tolerance=1e-4, floor=1e-6, because="sums in another order"
    )
