import pytest
from trained import believing_run, trained_run

from metarec_jax.recommender.recommender import Recommender


@pytest.fixture(scope="session")
def recommender() -> Recommender:
    return Recommender.load(trained_run())


@pytest.fixture(scope="module")
def believer() -> Recommender:
    return Recommender.load(believing_run())
