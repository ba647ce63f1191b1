"""The tests' type checker notices wrong types and shapes in calls of the package, and only while tests run."""

import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation

from metarec_jax.core.command_paths import path_argument
from metarec_jax.meta.user import masked_mean

THREE, FOUR = np.ones(3, np.float32), np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: path_argument(3), BeartypeCallHintViolation),
        (lambda: masked_mean("text", THREE), jaxtyping.TypeCheckError),
        (lambda: masked_mean(THREE.astype(np.int32), THREE), jaxtyping.TypeCheckError),
        (lambda: masked_mean(THREE[None], THREE), jaxtyping.TypeCheckError),
        (lambda: masked_mean(THREE, FOUR), jaxtyping.TypeCheckError),
    ],
    ids=["a type", "no array", "another dtype", "another rank", "axes of one name"],
)
def test_a_wrong_call_is_noticed(call, error):
    with pytest.raises(error):
        call()


def test_arguments_of_any_type_reach_a_function_where_checking_is_disabled(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError) as caught:
        path_argument(3)
    assert type(caught.value) is TypeError
