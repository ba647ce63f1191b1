"""Inverses and solutions of small symmetric positive definite systems, vectorised under ``vmap`` on every device.

On a CPU, LAPACK is called once per matrix, and several such calls in one program can deadlock; on accelerators LAPACK
routines are loops over columns.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LEAST = 8
"""Greatest size of a system that is solved by an inverse."""


@jax.custom_jvp
def inverse(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The inverse of a symmetric positive definite matrix, by Gauss-Jordan elimination.

    Positive definite matrices need no pivoting (Higham 2002, "Accuracy and stability of numerical algorithms", section
    14.4).
    """
    size = matrix.shape[0]

    def eliminate(k: Array, matrix: Array) -> Array:
        one = (jnp.arange(size) == k).astype(matrix.dtype)
        column = matrix[:, k]
        rest = jnp.where(one[None, :] > 0, one[:, None], matrix)
        row = rest[k] / column[k]
        return jnp.where(one[:, None] > 0, row[None, :], rest - column[:, None] * row[None, :])

    return jax.lax.fori_loop(0, size, eliminate, matrix)


@inverse.defjvp
def _jvp(primals: tuple[Array], tangents: tuple[Any]) -> tuple[Array, Array]:
    found = inverse(primals[0])
    return found, -found @ tangents[0] @ found


def solve(matrix: Float[Array, "n n"], right: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Solve a symmetric positive definite system, by elimination of halves.

    Nearly all operations are matrix products, and there are about a third as many as for the inverse. No pivoting is
    needed, since the Schur complement of a positive definite matrix is positive definite.

    Args:
        matrix: the matrix.
        right: right-hand sides.

    Returns:
        The solutions.
    """
    size = matrix.shape[0]
    if size <= _LEAST:
        return inverse(matrix) @ right
    half = size // 2
    corner = matrix[:half, half:]
    above = solve(matrix[:half, :half], jnp.concatenate([corner, right[:half]], axis=1))
    of_corner, of_right = above[:, : size - half], above[:, size - half :]
    below = solve(matrix[half:, half:] - corner.T @ of_corner, right[half:] - corner.T @ of_right)
    return jnp.concatenate([of_right - of_corner @ below, below])
