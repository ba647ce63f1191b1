"""Inner steps that are computed anew for the outer gradient, or in mixed mode: the same numbers in less memory."""

import jax
import numpy as np
import pytest
from helpers import assert_close, tiny

from metarec_jax.meta.model import UNROLL
from metarec_jax.meta.outer import meta_loss

RULES = {
    "gradient, dense": {"form": "dense"},
    "gradient, factored": {"form": "factored"},
    "momentum": {"kind": "momentum", "form": "factored"},
    "learned": {"kind": "learned"},
    "ridge": {"kind": "ridge", "adapted": ("output/.*",)},
}


WAYS = [(name, "remat") for name in RULES] + [("gradient, factored", "mixed")]
ALIKE = [("gradient, dense", "remat"), ("momentum", "remat"), ("learned", "remat")]
"""Ways that are computed as another of the list is: slow tests."""


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("rule", "way"),
    [pytest.param(*way, marks=[pytest.mark.slow] * (way in ALIKE), id=", ".join(way)) for way in WAYS],
)
def test_losses_and_gradients_are_those_of_steps_that_are_kept(rule, way):
    """Of theta, phi and embeddings, with dropout and micro-batches."""

    def slope(backward):
        case = tiny(head="rating", users=2, steps=3, dropout=0.3, backward=backward, **RULES[rule])
        assert case.model.backward == backward

        def loss(at):
            return meta_loss(case.model, *at, case.episodes, jax.random.key(2), at_once=1)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))((case.trainable, case.tables))

    assert_close(slope(way), slope("stored"))


def temporaries(*, backward, steps, **rule):
    """Bytes that the compiled gradient of a batch needs beside its arguments and results."""
    sizes = {"users": 8, "support": 8, "embedding": 32, "hidden": 16, "steps": steps}
    case = tiny(head="rating", prior=False, dtype=np.float32, form="dense", backward=backward, **sizes, **rule)
    model = case.model._replace(unroll=UNROLL)
    slope = jax.jit(jax.grad(lambda *at: meta_loss(model, *at)[0], argnums=(0, 1)))
    return slope.lower(case.trainable, case.tables, case.episodes).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize(
    ("way", "rule", "steps", "share"),
    [
        ("remat", {}, 20, 0.5),
        pytest.param("remat", {"kind": "learned"}, 20, 0.15, marks=pytest.mark.slow),  # these two compile for long
        ("remat", {}, UNROLL, 0.8),
        pytest.param("mixed", {"kind": "learned"}, 20, 0.15, marks=pytest.mark.slow),
    ],
    ids=["gradient", "learned", "a few steps", "learned, mixed"],
)
def test_a_long_inner_loop_needs_less_memory(way, rule, steps, share):
    """Of what steps on private matrices compute, the points that they lead to are left, and the rule's state; also
    where the loop would have been written out."""
    stored = temporaries(backward="stored", steps=steps, **rule)
    assert temporaries(backward=way, steps=steps, **rule) < share * stored
