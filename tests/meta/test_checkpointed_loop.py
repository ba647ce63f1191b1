"""A loop that keeps what its derivative needs has the values and the gradient of the same written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close

from metarec_jax.meta.checkpointed_loop import keeping

ROWS, TURNS, SLOTS = 2, 2, 6


def chunk(moving, turn):
    """Random numbers of the chunk's own, a product with a matrix that depends on no chunk, and a parameter as it is."""
    drawn = jax.random.normal(jax.random.fold_in(jax.random.key(1), turn), (ROWS, 3))
    square = jnp.cos(moving["kernel"]) @ moving["kernel"]
    return jnp.sin(drawn @ square) * moving["scale"][None]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("keep", ["products", "everything"])
def test_rows_and_their_derivative_are_those_of_the_turns_that_are_taken(keep):
    rng = np.random.default_rng(0)
    moving = {"kernel": jnp.asarray(rng.normal(size=(3, 3))), "scale": jnp.asarray(rng.normal(size=3))}
    cotangent, total = jnp.asarray(rng.normal(size=(SLOTS, 3))), jax.tree.map(jnp.ones_like, moving)

    @jax.jit
    def found(moving, turns):
        table, pull = keeping(chunk, moving, turns, SLOTS, ROWS, keep=keep)
        return table, pull(cotangent, total)

    def written_out(moving):
        return jnp.concatenate([chunk(moving, jnp.int32(turn)) for turn in range(TURNS)])

    table, slope = found(moving, jnp.int32(TURNS))
    rows, back = jax.vjp(written_out, moving)
    taken = TURNS * ROWS
    assert_close(table[:taken], rows)
    assert not table[taken:].any()
    assert_close(slope, jax.tree.map(jnp.add, total, back(cotangent[:taken])[0]))
    assert_close(found(moving, jnp.int32(0)), (jnp.zeros_like(table), total))


def test_what_depends_on_no_chunk_is_held_once():
    """The derivative of the product needs its matrix, which every chunk has: memory does not grow by one for each."""

    def temporaries(slots):
        def slope(moving, turns):
            table, pull = keeping(
                lambda moving, turn: jnp.sin(jnp.ones((ROWS, 300)) * turn @ jnp.cos(moving)),
                moving,
                turns,
                slots,
                ROWS,
                keep="everything",
            )
            return pull(table, jnp.zeros_like(moving))

        compiled = jax.jit(slope).lower(jnp.ones((300, 300)), jnp.int32(1)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    more, matrix = 20, 300 * 300 * 4
    assert temporaries((1 + more) * ROWS) - temporaries(ROWS) < more * matrix / 4
