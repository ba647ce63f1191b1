"""The implicit gradient costs no memory for steps; what it is equal to, `test_updaters` shows."""

import jax
import numpy as np
from helpers import assert_each_close, tiny

from metarec_jax.meta.outer import meta_loss


def temporaries(kind, steps):
    """Bytes that the outer gradient needs beside what goes in and comes out, compiled as a run compiles it."""
    case = tiny(
        kind=kind,
        steps=steps,
        rate=0.1,
        learn_rate="no",
        head="rating",
        prior=False,
        dtype=np.float32,
        users=8,
        support=8,
        embedding=32,
        hidden=16,
        form="dense",
    )
    slope = jax.jit(jax.grad(lambda *at: meta_loss(case.model, *at)[0]))
    compiled = slope.lower(case.trainable, case.tables, case.episodes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_steps():
    few, many = (temporaries("imaml", steps) for steps in (5, 50))
    assert_each_close(many, few, tolerance=0.05, because="the compiler may lay out a little more")
    few, many = (temporaries("gradient", steps) for steps in (5, 50))
    assert many > 2 * few
