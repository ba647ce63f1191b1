"""Inner steps in Gram space: exact, and without a private copy of any matrix.

A gradient step on ``y = X @ W`` over a user's support rows ``X`` [support, in] adds a matrix of rank at most `support`:
``W' = W - a X^T d`` with ``d = dL/dy``. So ``W'`` is never built. A user keeps ``D = -sum_k a_k d_k`` [support, out],
and ``x @ W' = x @ W + (x X^T) @ D``: ``x @ W`` is one product for all users, taken over a table of distinct rows,
and ``X X^T`` a small Gram matrix for each user, taken once and not once a step.

The learner does not know. It writes ``rows @ kernel``; here `rows` is a `metarec_jax.learner.gathered_rows.Fixed` and
`kernel` a small object that answers the product. A first pass with `Spy` kernels finds out which kernels meet fixed
rows only, takes the products that do not change, and counts floats to choose what is worth factoring.

A matrix that is not factored and has few columns (an output layer) is kept on its side, [out, in]: numbers that are
added up then lie next to each other, which is what vector units want.

The rule that moves ``D`` is the updater itself, since a step linear in the gradient commutes with ``X^T``: where a
dense kernel goes ``W <- W - a g``, a factored one goes ``D <- D - a d``. Elementwise rules do not commute: dense.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from metarec_jax.core.types import Params
from metarec_jax.learner.gathered_rows import Fixed, multiply

Form = Literal["auto", "dense", "factored"]
NARROW = 32
"""Columns below which a matrix is kept on its side: a row of fewer fills no vector register or tile."""


class Spy:
    """A matrix that remembers what it was multiplied with."""

    def __init__(self, base: Array):
        self.base = base
        self.rows: list[Fixed] = []
        self.product: Array | None = None
        self.moving_rows = False
        self.other_use = False

    def multiplied_by(self, rows: Fixed) -> Array:
        """The product ``rows @ kernel``."""
        self.rows.append(rows)
        self.product = rows.product(self.base)
        return self.product

    def right_of(self, rows: Array) -> Array:
        """The product ``rows @ kernel`` with rows that change from step to step."""
        self.moving_rows = True
        return multiply(rows, self.base)

    def __jax_array__(self) -> Array:
        self.other_use = True
        return self.base

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the matrix that this stands for."""
        return self.base.shape

    def unmoved(self) -> Array:
        """D before the first step."""
        return jnp.zeros((*self.rows[0].shape[:-1], self.base.shape[-1]), self.base.dtype)

    def worth_factoring(self, form: Form) -> bool:
        """Whether this kernel met one set of fixed rows only, and its factors hold fewer floats than it does."""
        if form == "dense" or self.other_use or self.moving_rows or len(self.rows) != 1:
            return False
        count = self.rows[0].shape[0] if len(self.rows[0].shape) == 2 else 1
        return form == "factored" or count * (count + self.base.shape[-1]) < self.base.size

    def lies_better(self) -> bool:
        """Whether this kernel is better kept on its side: it is narrow, and was multiplied with moving rows only."""
        return self.moving_rows and not (self.other_use or self.rows) and self.base.shape[-1] < NARROW


class Factored:
    """The matrix ``base + X^T D`` of one user.

    Args:
        base: [in, out], shared by all users.
        rows: X, the fixed rows that the inner loop sees.
        moved: D [support, out].
        product, gram: X @ base and X X^T, where they are at hand.
        probe: zeros like D, added to ``X @ kernel``; the gradient with respect to it is d.
    """

    def __init__(
        self,
        base: Array,
        rows: Fixed,
        moved: Array,
        product: Array | None = None,
        gram: Array | None = None,
        probe: Array | None = None,
    ):
        self.base, self.rows, self.moved = base, rows, moved
        self.product, self.gram, self.probe = product, gram, probe

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the matrix that this stands for."""
        return self.base.shape

    def multiplied_by(self, rows: Fixed) -> Array:
        """The product ``rows @ kernel``."""
        same = rows.name == self.rows.name
        product = self.product if same and self.product is not None else rows.product(self.base)
        gram = self.gram if same and self.gram is not None else gram_of(rows, self.rows, self.base.dtype)
        outputs = product + (gram @ self.moved if gram.ndim else gram * self.moved)
        return outputs if self.probe is None or not same else outputs + self.probe

    def right_of(self, rows: Array) -> Array:
        """The product ``rows @ kernel`` with rows that change from step to step."""
        gram = multiply(rows, self.rows.array().T.astype(self.base.dtype))
        return multiply(rows, self.base) + gram @ self.moved

    __rmatmul__ = right_of


class Sideways:
    """A matrix [in, out] of one user that is kept as [out, in]."""

    def __init__(self, transposed: Array):
        self.transposed = transposed

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the matrix that this stands for."""
        return self.transposed.shape[::-1]

    def multiplied_by(self, rows: Fixed) -> Array:
        """The product ``rows @ kernel``."""
        return self.right_of(rows.array())

    def right_of(self, rows: Array) -> Array:
        """The product ``rows @ kernel`` with rows that change from step to step."""
        kernel = self.transposed.astype(rows.dtype)
        return jnp.einsum("...i,oi->...o", rows, kernel, preferred_element_type=self.transposed.dtype)

    __rmatmul__ = right_of


def gram_of(left: Fixed, right: Fixed, dtype: DTypeLike) -> Array:
    """``left right^T``: [n, m], or [] for single rows; multiplied in the precision of the rows, summed in `dtype`."""
    if right.name in left.grams:
        return left.grams[right.name]
    return jnp.matmul(left.array(), right.array().T, preferred_element_type=dtype)


class Factoring:
    """Which adapted kernels of one user are factored, with the products that no inner step changes.

    Made by running `loss` once with spies in place of the adapted matrices.

    Args:
        loss: adapted parameters -> support loss.
        adapted: adapted part of theta, with None for what is shared.
        form: "auto" counts floats, "factored" factors whatever can be, "dense" nothing.
        as_it_is: whether every matrix keeps its shape, for a rule that tells one element from another.
    """

    def __init__(self, loss: Callable[[Params], Array], adapted: Params, form: Form, *, as_it_is: bool = False):
        self._loss = loss
        self._leaves, self._structure = jax.tree.flatten(adapted)
        spies = [Spy(leaf) if leaf.ndim == 2 else None for leaf in self._leaves]
        loss(self._structure.unflatten([leaf if spy is None else spy for leaf, spy in zip(self._leaves, spies)]))
        self._sideways = [not as_it_is and spy is not None and spy.lies_better() for spy in spies]
        self.spies = [spy if spy is not None and spy.worth_factoring(form) else None for spy in spies]
        self._grams = [None if spy is None else gram_of(spy.rows[0], spy.rows[0], spy.base.dtype) for spy in self.spies]

    def start(self) -> Params:
        """What the updater moves, before the first step: D = 0 for factored kernels, the values of all else."""

        def start(i: int, leaf: Array) -> Array:
            spy = self.spies[i]
            return self._laid(i, leaf) if spy is None else spy.unmoved()

        return self._each(start)

    def value_and_gradient(self, moving: Params) -> tuple[Array, Params]:
        """Support loss at `moving`, and its gradient: d for factored kernels, the ordinary one for all else."""
        at = self._structure.flatten_up_to(moving)

        def probed(probes: list[Array]) -> Array:
            return self._loss(self._each(lambda i, _: self._kernel(i, at[i], probes[i])))

        value, gradient = jax.value_and_grad(probed)(
            [leaf if spy is None else jnp.zeros_like(leaf) for leaf, spy in zip(at, self.spies)]
        )
        return value, self._structure.unflatten(gradient)

    def kernels(self, moved: Params, *, order: Literal["second", "first", "reptile"] = "second") -> Params:
        """Parameters for the learner after the inner loop has led to `moved`.

        With `order` "first" the steps count as constants: not only D, but also the rows X of ``X^T D``. With "reptile"
        the parameters as a whole do.
        """
        at = self._structure.flatten_up_to(moved)
        return self._each(lambda i, _: self._kernel(i, at[i], None, order))

    def path_product(self, moved: Params) -> Array:
        """The inner product of theta with the way to `moved`, the latter a constant: its gradient is that way.

        Taken in factors: ``<X^T D, W> = <D, X W>``.
        """
        total = jnp.zeros(())
        for i, (leaf, spy, at) in enumerate(zip(self._leaves, self.spies, self._structure.flatten_up_to(moved))):
            if spy is None:
                leaf = self._laid(i, leaf)
                total += jnp.sum(jax.lax.stop_gradient(at - leaf) * leaf)
            else:
                total += jnp.sum(jax.lax.stop_gradient(at) * multiply(spy.rows[0].constant().array(), leaf))
        return total

    def each(self, function: Callable[[Spy | None, Array], Any]) -> Params:
        """A tree like the adapted parameters, of `function` of each leaf and, where it is factored, its spy."""
        return self._each(lambda i, leaf: function(self.spies[i], leaf))

    def _kernel(self, i: int, moved: Array, probe: Array | None, order: str = "second") -> Any:
        """Leaf `i` as the learner shall see it; with a `probe` that the gradient is taken of."""
        spy = self.spies[i]
        if order == "reptile":
            moved = jax.lax.stop_gradient(moved)
        if spy is None:
            value = moved if probe is None else probe
            return Sideways(value) if self._sideways[i] else value
        if order == "first":
            return Factored(spy.base, spy.rows[0].constant(), moved)
        if order == "reptile":
            return Factored(jax.lax.stop_gradient(spy.base), spy.rows[0].constant(), moved)
        return Factored(spy.base, spy.rows[0], moved, spy.product, self._grams[i], probe)

    def _laid(self, i: int, leaf: Array) -> Array:
        return leaf.T if self._sideways[i] else leaf

    def _each(self, function: Callable[[int, Array], Any]) -> Params:
        return self._structure.unflatten([function(i, leaf) for i, leaf in enumerate(self._leaves)])


class _Watched:
    """A matrix that remembers what it was multiplied with from the left."""

    def __init__(self, base: Array):
        self.base = base
        self.left: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.base.shape

    def multiplied_by(self, rows: Fixed) -> Array:
        self.left = rows.array().astype(self.base.dtype)
        return rows.product(self.base)

    def right_of(self, rows: Array) -> Array:
        self.left = rows.astype(self.base.dtype)
        return multiply(rows, self.base)

    __rmatmul__ = right_of


def left_operands(function: Callable[[Params], Any], params: Params) -> Params:
    """A tree like `params`: of each matrix what `function` multiplied it with (last, if it did so more than once).

    None where a leaf is no matrix, or was not multiplied. A function that does anything else with a matrix fails.
    """
    watched = jax.tree.map(lambda leaf: _Watched(leaf) if leaf.ndim == 2 else leaf, params)
    function(watched)
    return jax.tree.map(
        lambda leaf: leaf.left if isinstance(leaf, _Watched) else None,
        watched,
        is_leaf=lambda leaf: isinstance(leaf, _Watched),
    )
