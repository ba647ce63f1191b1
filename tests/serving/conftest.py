import functools
from unittest import mock

import jax
import pytest
from quick import QUICK
from trained import believing_run, trained_run

from metarec_jax.serving.recommender import Recommender


@pytest.fixture(scope="session")
def recommender() -> Recommender:
    return Recommender.load(trained_run())


@pytest.fixture(scope="module")
def quick_programs():
    """For modules that ask for it: all programs are compiled quickly."""
    with mock.patch.object(jax, "jit", functools.partial(jax.jit, compiler_options=QUICK)):
        yield


@pytest.fixture(scope="module")
def believer() -> Recommender:
    return Recommender.load(believing_run())
