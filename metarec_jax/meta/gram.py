"""Inner steps in Gram space: exact, and without a copy of any matrix for each user.

A gradient step on ``y = X @ W`` over a user's support rows ``X`` [support, in] adds a matrix of rank at most `support`:
``W' = W - a X^T d`` with ``d = dL/dy``. ``W'`` is never computed. A user stores ``D = -sum_k a_k d_k`` [support, out],
and ``x @ W' = x @ W + (x X^T) @ D``. The term ``x @ W`` is one product for all users, over a table of distinct rows;
``X X^T`` is a small Gram matrix of each user, computed once and not in every step.

A learner needs no change for this. It computes ``rows @ kernel``, where `rows` is a
`metarec_jax.learner.gathered_rows.Fixed` and `kernel` an object of this module that computes the product. One abstract
evaluation of the learner with `Spy` kernels finds the kernels that are multiplied with fixed rows only, and compares
numbers of floats to choose which of them are factored (`Plan`).

A matrix that is not factored and has few columns (an output layer) is stored transposed, [out, in], so that sums run
over contiguous numbers, as vector instructions need.

The updater's own rule changes ``D``, since a step linear in the gradient commutes with ``X^T``: ``W <- W - a g`` for a
dense kernel is ``D <- D - a d`` for a factored one. Elementwise rules do not commute with it and need dense kernels.
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
from metarec_jax.learner.gathered_rows import AsArray, Fixed, multiply

Form = Literal["auto", "dense", "factored"]
NARROW = 32
"""Number of columns below which a matrix is stored transposed, since its rows do not fill a vector register or tile."""


class Spy(AsArray):
    """A matrix that records its uses."""

    def __init__(self, base: Array):
        self.base = base
        self.rows: list[Fixed] = []
        self.moving_rows = False
        self.other_use = False

    def multiplied_by(self, rows: Fixed) -> Array:
        """Compute ``rows @ kernel`` for fixed rows."""
        self.rows.append(rows)
        return rows.product(self.base)

    def right_of(self, rows: Array) -> Array:
        """Compute ``rows @ kernel`` for rows that change between steps."""
        self.moving_rows = True
        return multiply(rows, self.base)

    def __jax_array__(self) -> Array:
        self.other_use = True
        return self.base

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix."""
        return self.base.shape

    def worth_factoring(self, form: Form) -> bool:
        """Whether this kernel was multiplied with one set of fixed rows only, and its factors have fewer floats."""
        if form == "dense" or self.other_use or self.moving_rows or len(self.rows) != 1:
            return False
        count = self.rows[0].shape[0] if len(self.rows[0].shape) == 2 else 1
        return form == "factored" or count * (count + self.base.shape[-1]) < self.base.size

    def lies_better(self) -> bool:
        """Whether this kernel is better stored transposed: it is narrow, and was multiplied with changing rows only."""
        return self.moving_rows and not (self.other_use or self.rows) and self.base.shape[-1] < NARROW


class Factored:
    """The matrix ``base + X^T D`` of one user.

    Args:
        base: [in, out], shared by all users.
        rows: X, the fixed rows that the inner loop reads.
        moved: D [support, out].
        product, gram: ``X @ base`` and ``X X^T`` where they are precomputed; else None.
        probe: zeros of the shape of D, added to ``X @ kernel``; the gradient by it is d.
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
        """Shape of the matrix that this object represents."""
        return self.base.shape

    def multiplied_by(self, rows: Fixed) -> Array:
        """Compute ``rows @ kernel`` for fixed rows."""
        same = rows.name == self.rows.name
        product = self.product if same and self.product is not None else rows.product(self.base)
        gram = self.gram if same and self.gram is not None else gram_of(rows, self.rows, self.base.dtype)
        outputs = product + (gram @ self.moved if gram.ndim else gram * self.moved)
        return outputs if self.probe is None or not same else outputs + self.probe

    def right_of(self, rows: Array) -> Array:
        """Compute ``rows @ kernel`` for rows that change between steps."""
        gram = multiply(rows, self.rows.array().T.astype(self.base.dtype))
        return multiply(rows, self.base) + gram @ self.moved

    __rmatmul__ = right_of

    def array(self) -> Array:
        """The matrix itself."""
        rows = jnp.atleast_2d(self.rows.array()).astype(self.base.dtype)
        return self.base + rows.T @ jnp.atleast_2d(self.moved)


class Sideways:
    """A matrix [in, out] of one user that is stored as [out, in]."""

    def __init__(self, transposed: Array):
        self.transposed = transposed

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the matrix that this object represents."""
        return self.transposed.shape[::-1]

    def multiplied_by(self, rows: Fixed) -> Array:
        """Compute ``rows @ kernel`` for fixed rows."""
        return self.right_of(rows.array())

    def right_of(self, rows: Array) -> Array:
        """Compute ``rows @ kernel`` for rows that change between steps."""
        kernel = self.transposed.astype(rows.dtype)
        return jnp.einsum("...i,oi->...o", rows, kernel, preferred_element_type=self.transposed.dtype)

    __rmatmul__ = right_of

    def array(self) -> Array:
        """The matrix itself."""
        return self.transposed.T


def gram_of(left: Fixed, right: Fixed, dtype: DTypeLike) -> Array:
    """Compute ``left right^T``, multiplied in the precision of the rows and summed in `dtype`.

    Args:
        left: n rows, or a single row.
        right: m rows, or a single row.
        dtype: data type of the result.

    Returns:
        [n, m], with no axis for a single row.
    """
    if right.name in left.grams:
        return left.grams[right.name]
    return jnp.matmul(left.array(), right.array().T, preferred_element_type=dtype)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Plan:
    """How the adapted parameters of a user are stored, the same for all users of a batch.

    Attributes:
        forms: form of each adapted leaf: "dense", "transposed", or the name of the rows X of a factored kernel.
        met: path and names of rows of each matrix that is equal for all users (shared, or base of a factored kernel)
            and multiplied with fixed rows.
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
        """Evaluate a learner with a `Spy` in place of each matrix, and choose the forms.

        Args:
            apply: (theta, "support" or "query") -> outputs of these rows.
            adapted, shared: the two parts of theta.
            form: "auto" factors where this saves floats, "factored" wherever possible, "dense" nowhere.
            elementwise: whether the updater is elementwise; then all matrices are dense.
            constant_start: whether the initial kernels are constants in the inner loop (Reptile).
            query: whether the learner is also applied to query rows.

        Returns:
            The plan.
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
            for name, spy in zip(names, spies):
                if name in adapts and isinstance(spy, Spy) and spy.other_use:
                    forms[adapts[name]] = "dense"  # the query reads it as an array
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
    """The parameters of one user after the inner loop, in the forms of a plan (a pytree; the plan is static).

    Attributes:
        moved: a tree like the adapted parameters: D [rows, out] for a factored kernel, otherwise the parameter itself,
            transposed where its form says so.
        plan: the forms.
    """

    moved: Params
    plan: Plan = dataclasses.field(metadata={"static": True})


class InnerParameters:
    """The adapted parameters of one user during the inner loop.

    Args:
        adapted: initial values, with None for shared parameters.
        plan: their forms.
        rows: the rows of this user, by name.
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
        """The parameters before the first step: D = 0 for factored kernels, otherwise the initial values."""

        def start(i: int, leaf: Array) -> Array:
            if self._factored[i]:
                return jnp.zeros((*self._rows[self._forms[i]].shape[:-1], leaf.shape[-1]), leaf.dtype)
            return self._laid(i, leaf)

        return self._each(start)

    def value_and_gradient(
        self, loss: Callable[[Params], Array], differentiate: Callable[[Any], Any] = jax.value_and_grad
    ) -> Callable[[Params], tuple[Array, Params]]:
        """Make the value and gradient of a loss in the forms of the plan.

        Args:
            loss: function of the adapted parameters as the learner reads them.
            differentiate: `jax.value_and_grad`, or that of `metarec_jax.meta.mixed_mode`.

        Returns:
            Function of the parameters in their forms -> (loss, gradient): the gradient d by ``X @ kernel`` for factored
            kernels, the ordinary gradient for the others.
        """

        def at_point(at: Params) -> tuple[Array, Params]:
            moved = self._structure.flatten_up_to(at)

            def probed(probes: list[Array]) -> Array:
                return loss(self._each(lambda i, _: self._kernel(i, moved[i], probes[i])))

            value, gradient = differentiate(probed)(
                [jnp.zeros_like(leaf) if factored else leaf for leaf, factored in zip(moved, self._factored)]
            )
            return value, self._structure.unflatten(gradient)

        return at_point

    def kernels(self, at: Params, *, order: Literal["second", "first", "reptile"] = "second") -> Params:
        """The adapted parameters as the learner reads them.

        Args:
            at: parameters after the inner loop, in the forms of the plan.
            order: with "first" the steps are constants: D is one already, and so are the rows X of ``X^T D``. With
                "reptile" the parameters are constants as a whole.

        Returns:
            A tree of arrays, and of objects in place of matrices.
        """
        moved = self._structure.flatten_up_to(at)
        return self._each(lambda i, _: self._kernel(i, moved[i], None, order))

    def path_product(self, at: Params) -> Array:
        """Inner product of theta with the displacement of the inner loop, a constant; its gradient is the displacement.

        For factored kernels it is computed from the factors: ``<X^T D, W> = <D, X W>``.

        Args:
            at: parameters after the inner loop, in the forms of the plan.

        Returns:
            [].
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
        """Leaf `i` as the learner reads it; with a `probe`, by which the gradient is computed."""
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
