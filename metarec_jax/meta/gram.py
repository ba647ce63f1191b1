"""Inner steps in Gram space: exact, and without a private copy of any matrix.

A gradient step on ``y = X @ W`` over a user's support rows ``X`` [support, in] adds a matrix of rank at most `support`:
``W' = W - a X^T d`` with ``d = dL/dy``. So ``W'`` is never built. A user keeps ``D = -sum_k a_k d_k`` [support, out],
and ``x @ W' = x @ W + (x X^T) @ D``: ``x @ W`` is one product for all users, taken over a table of distinct rows,
and ``X X^T`` a small Gram matrix for each user, taken once and not once a step.

The learner does not know. It writes ``rows @ kernel``; here `rows` is a `metarec_jax.learner.gathered_rows.Fixed` and
`kernel` a small object that answers the product. One abstract run of the learner with `Spy` kernels finds out which
kernels meet fixed rows only, and counts floats to choose what is worth factoring (`Plan`).

A matrix that is not factored and has few columns (an output layer) is kept on its side, [out, in]: numbers that are
added up then lie next to each other, which is what vector units want.

The rule that moves ``D`` is the updater itself, since a step linear in the gradient commutes with ``X^T``: where a
dense kernel goes ``W <- W - a g``, a factored one goes ``D <- D - a d``. Elementwise rules do not commute: dense.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from metarec_jax.core.params import combine, path_names
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
        self.moving_rows = False
        self.other_use = False

    def multiplied_by(self, rows: Fixed) -> Array:
        """The product ``rows @ kernel``."""
        self.rows.append(rows)
        return rows.product(self.base)

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


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Plan:
    """How the adapted parameters of a user are kept, decided once for all users of a batch.

    Attributes:
        forms: of each adapted leaf: "dense", "transposed", or the name of the rows that its factors stand for.
        met: of each kernel that no user changes (shared, or factored), by its path: names of the rows that it meets.
    """

    forms: tuple[str, ...]
    met: tuple[tuple[str, frozenset[str]], ...] = ()

    @classmethod
    def of(
        cls,
        apply: Callable[[Params, str], Any],
        adapted: Params,
        shared: Params,
        form: Form,
        *,
        elementwise: bool = False,
        constant_start: bool = False,
        query: bool = False,
    ) -> Plan:
        """Run a learner with spies in place of its matrices, and decide.

        Args:
            apply: (theta, "support" or "query") -> outputs of these rows.
            adapted, shared: the two parts of theta.
            form: "auto" counts floats, "factored" factors whatever can be, "dense" nothing.
            elementwise: whether the updater tells one element of a matrix from another: then all keep their shape.
            constant_start: whether theta's own kernels count as constants in the inner loop (Reptile).
            query: whether the learner is applied to query rows too.
        """
        whole = combine(adapted, shared)
        names, adapts = path_names(whole), {name: i for i, name in enumerate(path_names(adapted))}
        spies = [Spy(leaf) if leaf.ndim == 2 else leaf for leaf in jax.tree.leaves(whole)]
        structure = jax.tree.structure(whole)
        apply(structure.unflatten(spies), "support")
        forms = ["dense"] * len(adapts)
        for name, spy in zip(names, spies):
            if name in adapts and isinstance(spy, Spy) and not elementwise:
                if spy.worth_factoring(form):
                    forms[adapts[name]] = spy.rows[0].name
                elif spy.lies_better():
                    forms[adapts[name]] = "transposed"
        if query:
            apply(structure.unflatten(spies), "query")
        met = []
        for name, spy in zip(names, spies):
            unchanged = name not in adapts or (
                forms[adapts[name]] not in ("dense", "transposed") and not constant_start
            )
            if isinstance(spy, Spy) and spy.rows and unchanged:
                met.append((name, frozenset(rows.name for rows in spy.rows)))
        return cls(tuple(forms), tuple(met))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Adapted:
    """The parameters of one user after the inner loop, in the form of a plan (a pytree; the plan is static).

    Attributes:
        moved: a tree like the adapted parameters: D [rows, out] of what is factored, the parameter itself of all else.
        plan: how to read it.
    """

    moved: Params
    plan: Plan = dataclasses.field(metadata={"static": True})


class InnerParameters:
    """The adapted parameters of one user during the inner loop.

    Args:
        adapted: their start, with None for what is shared.
        plan: how they are kept.
        rows: the rows of this user by their name.
    """

    def __init__(self, adapted: Params, plan: Plan, rows: Mapping[str, Fixed]):
        self._leaves, self._structure = jax.tree.flatten(adapted)
        self._forms, self._rows = plan.forms, rows
        self._factored = [form not in ("dense", "transposed") for form in plan.forms]
        self._products = [
            rows[form].product(leaf) if factored else None
            for form, leaf, factored in zip(plan.forms, self._leaves, self._factored)
        ]
        self._grams = [
            gram_of(rows[form], rows[form], leaf.dtype) if factored else None
            for form, leaf, factored in zip(plan.forms, self._leaves, self._factored)
        ]

    def start(self) -> Params:
        """The parameters before the first step: D = 0 for factored kernels, the values of all else."""

        def start(i: int, leaf: Array) -> Array:
            if self._factored[i]:
                return jnp.zeros((*self._rows[self._forms[i]].shape[:-1], leaf.shape[-1]), leaf.dtype)
            return self._laid(i, leaf)

        return self._each(start)

    def value_and_gradient(self, loss: Callable[[Params], Array]) -> Callable[[Params], tuple[Array, Params]]:
        """The value and gradient of a loss of the adapted parameters as the learner sees them: of D for factored
        kernels, the ordinary gradient for all else."""

        def at_point(at: Params) -> tuple[Array, Params]:
            moved = self._structure.flatten_up_to(at)

            def probed(probes: list[Array]) -> Array:
                return loss(self._each(lambda i, _: self._kernel(i, moved[i], probes[i])))

            value, gradient = jax.value_and_grad(probed)(
                [jnp.zeros_like(leaf) if factored else leaf for leaf, factored in zip(moved, self._factored)]
            )
            return value, self._structure.unflatten(gradient)

        return at_point

    def kernels(self, at: Params, *, order: Literal["second", "first", "reptile"] = "second") -> Params:
        """The adapted parameters as the learner sees them.

        Args:
            at: where the inner loop led.
            order: with "first" the steps count as constants: not only D, but also the rows X of ``X^T D``. With
                "reptile" the parameters as a whole do.
        """
        moved = self._structure.flatten_up_to(at)
        return self._each(lambda i, _: self._kernel(i, moved[i], None, order))

    def path_product(self, at: Params) -> Array:
        """The inner product of theta with the way to a point, the latter a constant: its gradient is that way.

        Taken in factors: ``<X^T D, W> = <D, X W>``.
        """
        total = jnp.zeros(())
        for i, (leaf, moved) in enumerate(zip(self._leaves, self._structure.flatten_up_to(at))):
            if self._factored[i]:
                rows = self._rows[self._forms[i]].constant().array()
                total += jnp.sum(jax.lax.stop_gradient(moved) * multiply(rows, leaf))
            else:
                leaf = self._laid(i, leaf)
                total += jnp.sum(jax.lax.stop_gradient(moved - leaf) * leaf)
        return total

    def _kernel(self, i: int, moved: Array, probe: Array | None, order: str = "second") -> Any:
        """Leaf `i` as the learner shall see it; with a `probe` that the gradient is taken of."""
        if order == "reptile":
            moved = jax.lax.stop_gradient(moved)
        if not self._factored[i]:
            value = moved if probe is None else probe
            return Sideways(value) if self._forms[i] == "transposed" else value
        base, rows = self._leaves[i], self._rows[self._forms[i]]
        if order == "first":
            return Factored(base, rows.constant(), moved)
        if order == "reptile":
            return Factored(jax.lax.stop_gradient(base), rows.constant(), moved)
        return Factored(base, rows, moved, self._products[i], self._grams[i], probe)

    def _laid(self, i: int, leaf: Array) -> Array:
        return leaf.T if self._forms[i] == "transposed" else leaf

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
