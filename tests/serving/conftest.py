import pytest
from trained import trained_run

from metarec_jax.serving.recommender import Recommender


@pytest.fixture(scope="session")
def recommender() -> Recommender:
    return Recommender.load(trained_run())
