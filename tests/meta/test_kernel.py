"""The kernel of the inner loop computes what XLA computes: values, and gradients of first and second order."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from helpers import assert_close, assert_equal, tiny

from metarec_jax.core.errors import MetarecError
from metarec_jax.meta.outer import meta_loss

CASES = {
    "standard": {"head": "classes", "learn_rate": "layer-step"},
    "blocks": {"head": "classes", "users": 6},
    "first order": {"head": "classes", "order": "first"},
    "reptile": {"head": "classes", "order": "reptile"},
    "momentum": {"head": "classes", "kind": "momentum"},
    "dense": {"head": "classes", "form": "dense"},
    "factored": {"head": "classes", "form": "factored"},
    "ratings": {"head": "rating"},
    "clicks": {"head": "click"},
    "a context": {"head": "classes", "context": 2},
    "no steps": {"head": "classes", "steps": 0},
    "recomputed steps": {"head": "classes", "backward": "remat"},
}
ALIKE = ("reptile", "dense", "ratings", "clicks", "a context", "momentum", "blocks", "no steps", "recomputed steps")
"""Cases that are computed as another of the list is: slow tests."""


def both(argnums=(0, 1), **case):
    """(losses and gradients of the kernel, those of XLA's program)."""
    at = tiny(**case)

    def found(kernel):
        model = at.model._replace(kernel=kernel)
        function = jax.value_and_grad(lambda *moving: meta_loss(model, *moving, at.episodes), argnums, has_aux=True)
        return jax.jit(function)(at.trainable, at.tables)

    return found(3), found(0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ALIKE)) for n in CASES])
def test_the_kernel_computes_what_xla_computes(name):
    """By theta, phi and embeddings; later users have ever more padded slots."""
    assert_close(*both(**CASES[name]))


@pytest.mark.usefixtures("x64")
def test_embeddings_without_gradient_are_read_only():
    assert_close(*both(argnums=(0,), **CASES["standard"]))


@pytest.mark.slow
def test_losses_without_a_gradient_are_those_of_xla():
    at = tiny(head="classes", dtype=np.float32)
    wanted = meta_loss(at.model, at.trainable, at.tables, at.episodes)
    assert_equal(meta_loss(at.model._replace(kernel=3), at.trainable, at.tables, at.episodes), wanted)


@pytest.mark.parametrize(
    ("case", "kernel", "named"),
    [
        ({"head": "classes"}, 2, ["a block of 2 users does not divide 3 users"]),
        ({"head": "ordinal"}, 3, ["does not compute pad", "use kernel = 0"]),
        (
            {"head": "classes", "kind": "imaml"},
            3,
            ["does not compute the operation custom_linear_solve", "use kernel = 0"],
        ),
    ],
)
def test_what_the_kernel_does_not_compute_is_named(case, kernel, named):
    at = tiny(**case, dtype=np.float32)
    model = at.model._replace(kernel=kernel)
    with pytest.raises(MetarecError) as error:
        jax.grad(lambda trainable: meta_loss(model, trainable, at.tables, at.episodes)[0])(at.trainable)
    for part in named:
        assert part in str(error.value)
