"""Alternating fit of the variational factorisation: users, their prior, items, their prior, noise.

The hyperparameters maximise the lower bound of the evidence given the posteriors of users and items; the covariance of
users is shrunk towards its diagonal. No variance is set by hand but for the initial values, in units of the ratings'
own variance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import ArrayLike
from scipy.linalg import get_lapack_funcs

from metarec_jax.core.global_arrays import host, put
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.stored_columns import Column
from metarec_jax.factors.fit_cache import Cache, Kept, kept
from metarec_jax.factors.fit_rows import FitRows
from metarec_jax.factors.fit_state import Fitted, Known, State
from metarec_jax.factors.row_batches import KINDS, MOST_OWNERS, Rows, layout
from metarec_jax.factors.row_products import AXIS, sum_rows
from metarec_jax.factors.variational import (
    ItemPrior,
    ItemSums,
    Other,
    UserSums,
    predict,
    solve_items,
    solve_users,
)

_FLOOR = 1e-6
"""Least variance, as a share of the variance of the ratings."""
_GAIN = 5e-4
"""Least relative gain on rows held out that counts."""
_PATIENCE = 3
"""Sweeps without gain after which the fit stops."""
SWEEPS = 24
"""Greatest number of sweeps."""
_PRIOR_STEPS, _PRIOR_FROM = 10, 4
"""Steps of expectation maximisation of the users' prior in a sweep, on a sample of users, and the sweep from which on
they are made: before, factors still move too much."""
_SAMPLE = MOST_OWNERS
"""Users of the sample; these are in the first block for any number of devices."""
_TABLES = ("items", "noise")
"""Fields of the state that are tables on the devices."""
_NUMBERS = ("common", "new_doubt", "sweeps", "sweep", "since", "best")
"""Fields of a state or fit that are single numbers."""
_DOUBT = 20.0
"""Ratings that weigh as much as the noise of all items in the noise of an item."""


Sums = TypeVar("Sums", UserSums, ItemSums)


def fit(
    user: Column,
    item: Column,
    value: Column,
    known: Known,
    *,
    mesh: Mesh,
    sweeps: int = SWEEPS,
    watch: Callable[[int, float], None] = lambda sweep, error: None,
    cache: Cache | None = None,
    reporter: Reporter = QUIET,
    label: str = "item factors",
    unit: float = 1.0,
) -> Fitted:
    """Fit the factorisation.

    Args:
        user, item: int [rows], numbered from 0 without gaps. Columns are read in slices.
        value: float [rows], ratings, of mean 0 and variance 1 over all rows.
        known: what is known of the items.
        mesh: mesh with the axis `AXIS`, over which users and items are sharded.
        sweeps: greatest number of sweeps.
        watch: called after each sweep with its number and the root mean squared error on rows that are held out (of
            fewer than 5,000 rows none are, and this is the standard deviation of the noise).
        cache: where long fits are kept, also while they are under way; None keeps none.
        reporter: shows progress: of grouping rows, and of sweeps.
        label: what is fitted.
        unit: standard deviation of the ratings, in which the error is shown.

    Returns:
        The fit.
    """
    files = kept(cache, sweeps, user, item, value, *known)
    finished = files.finished()
    if finished is not None:
        fields: dict[str, Any] = finished | {name: finished[name].item() for name in _NUMBERS if name in finished}
        return Fitted(**fields)
    made = _Fit(user, item, value, known, mesh, reporter, label, None if cache is None else cache.folder)
    with reporter.bar(label, sweeps) as advance:

        def seen(sweep: int, error: float) -> None:
            advance(sweep + 1, f"rmse {error * unit:.4f}")
            watch(sweep, error)

        found = made.run(sweeps, seen, files)
    files.finish(found._asdict())
    return found


class _Fit:
    """Rows and constant tables of a fit."""

    def __init__(
        self,
        user: Column,
        item: Column,
        value: Column,
        known: Known,
        mesh: Mesh,
        reporter: Reporter,
        label: str,
        folder: Path | None,
    ) -> None:
        self.mesh, self.free, self.known = mesh, known.start.shape[1], known
        self.dtype = jnp.result_type(float)
        devices = mesh.shape[AXIS]
        self.users, self.items = layout(int(user.max()) + 1, devices), layout(len(known.columns), devices)
        self.width = known.columns.shape[1]
        width = self.width + self.free
        widths = (width + 1, width + 2)
        self.rows = FitRows(user, item, value, self.users, self.items, widths, reporter, label, folder)
        self.columns = self._put(self.items.spread(known.columns))
        self.features = self._put(self.items.spread(known.features))
        self.check = self.rows.check(devices)
        self._count(everything=False)

    def _put(self, table: np.ndarray) -> jax.Array:
        """Move a table [devices, ...] to the devices."""
        dtype = self.dtype if np.issubdtype(table.dtype, np.floating) else table.dtype
        return put(table.astype(dtype), NamedSharding(self.mesh, PartitionSpec(AXIS)))

    def _same(self, values: ArrayLike | float) -> Any:
        """An argument that all devices have: a host array, since one on a device of a process is not on the others'."""
        return np.asarray(values, self.dtype)

    def _count(self, *, everything: bool) -> None:
        """Count the rows that are used by owner and kind of the other side."""
        self.everything = everything
        found = self.rows.counts(everything=everything)
        self.used, self.user_kind, self.item_kind = found.used, found.user_kind, found.item_kind
        self.user_counts, self.item_counts = self._put(found.of_users), self._put(found.of_items)
        self.kind_of_users = self._put(self.users.spread(self.user_kind))
        sampled = np.arange(self.users.number) < _SAMPLE
        self.sample = self._put(self.users.spread(np.where(sampled, self.user_kind, 0)))
        self.kind_of_items = self._put(self.items.spread(self.item_kind))
        self.seen = self._put(self.items.spread(found.seen.astype(np.float64)))
        self.gram = np.asarray(host(_gram(self.features, self.seen)), np.float64)

    def _start(self) -> State:
        """Initial values."""
        width, free = self.width, self.free
        variance = np.concatenate([[0.3], np.full(free, 1 / max(free, 1))])
        sources = self.known.source.max(initial=-1) + 1
        items = np.concatenate([np.zeros((self.items.number, 1)), self.known.start], axis=1)
        first = np.diag(np.concatenate([[0.05], np.full(free, 0.01)])) / 0.7
        return State(
            mean=np.zeros(width + free),
            covariance=np.diag(np.concatenate([[0.2], np.full(width - 1, 0.05), np.ones(free)])),
            map=np.zeros((self.known.features.shape[1], 1 + free)),
            variance=variance,
            scale=np.full((sources, 1 + free), 0.1) * variance,
            common=0.7,
            items=self._put(self.items.spread(items)),
            noise=self._put(self.items.spread(np.full(self.items.number, 0.7), padding=0.7)),
            spread=np.broadcast_to(first, (KINDS, 1 + free, 1 + free)),
        )

    def run(self, sweeps: int, watch: Callable[[int, float], None], files: Kept) -> Fitted:
        """Sweep until the error on held-out rows no longer falls, and then once with all rows."""
        state = self._restored(files.state()) or self._start()
        while state.sweep < sweeps and state.since < _PATIENCE:
            table = self._sweep_users(state)
            self._sweep_items(state, table)
            error = self._error(state, table)
            watch(state.sweep, error)
            state.sweep += 1
            state.since = 0 if error < state.best * (1 - _GAIN) else state.since + 1
            state.best = min(state.best, error)
            files.keep(lambda: self._arrays(state))
        self._count(everything=True)
        doubt = self._sweep_items(state, self._sweep_users(state))
        of_items = self.items.joined(state.items).astype(np.float64)
        return Fitted(
            of_items[:, 0],
            of_items[:, 1:],
            self.items.joined(state.noise).astype(np.float64),
            self.items.joined(doubt).astype(np.float64),
            state.mean,
            state.covariance,
            state.map,
            state.variance,
            state.common,
            float(np.sum(state.variance * np.diag(self._moments(state)))),
            state.sweep,
        )

    def _arrays(self, state: State) -> dict[str, np.ndarray]:
        """The state as host arrays that do not depend on the number of devices."""
        found = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
        return {n: self.items.joined(v) if n in _TABLES else np.asarray(v) for n, v in found.items()}

    def _restored(self, arrays: dict[str, np.ndarray] | None) -> State | None:
        """The state of `_arrays`."""
        if arrays is None:
            return None
        tables = {name: self._put(self.items.spread(arrays[name], padding=1.0)) for name in _TABLES}
        fields: dict[str, Any] = arrays | tables
        return State(**(fields | {name: arrays[name].item() for name in _NUMBERS if name in arrays}))

    def _of_items(self, state: State) -> Other:
        """What users are computed from."""
        width = self.width + self.free + 1
        table = _item_table(self.columns, state.items, state.noise)
        own = np.concatenate([np.arange(self.width, self.width + self.free), [width - 1]])
        sign = np.concatenate([np.ones(self.free), [-1.0]])
        order = np.concatenate([np.arange(1, 1 + self.free), [0]])
        covariance = np.zeros((KINDS, width, width))
        covariance[:, own[:, None], own[None]] = (
            state.spread[:, order[:, None], order[None]] * sign[:, None] * sign[None]
        )
        return Other(table, self._same(covariance))

    def _sums(self, rows: Rows, block: int, other: Other) -> jax.Array:
        return sum_rows(rows, block, other.table, self.everything, mesh=self.mesh)

    def _sweep_users(self, state: State) -> Other:
        """Compute the users' posterior, and their prior from it."""
        other = self._of_items(state)
        tastes, parts = [], []
        for block in range(self.users.blocks):
            found = self._sums(self.rows.by_user, block, other)
            if block == 0 and state.sweep >= _PRIOR_FROM:
                for _ in range(_PRIOR_STEPS):
                    self._fit_prior(state, self._solve(state, found, block, other, self.sample)[1].moments)
            taste, sums = self._solve(state, found, block, other, self.kind_of_users)
            tastes.append(taste)
            parts.append(sums)
        total = _total(parts)
        self._fit_prior(state, total.moments)
        width = self.width + self.free
        covariance = np.zeros((KINDS, width + 2, width + 2))
        covariance[:, 1:-1, 1:-1] = _mean_by_kind(total.covariance, self.user_kind)
        return Other(_user_table(jnp.concatenate(tastes, axis=1)), self._same(covariance))

    def _solve(
        self, state: State, found: jax.Array, block: int, other: Other, kind: jax.Array
    ) -> tuple[jax.Array, UserSums]:
        """Compute the posterior of the users of a block, and sums over the users whose kind is given."""
        some = slice(block * self.users.block, (block + 1) * self.users.block)
        mean, precision = (self._same(a) for a in (state.mean, np.linalg.inv(state.covariance)))
        return solve_users(
            found, self.user_counts[:, some], kind[:, some], other.covariance, mean, precision, mesh=self.mesh
        )

    def _fit_prior(self, state: State, moments: ArrayLike) -> None:
        """Fit the prior of the users to the second moments of ``(1, t_u)``."""
        moments = np.asarray(moments, np.float64)
        users, weight = moments[0, 0], self.width + self.free + 2
        state.mean = moments[0, 1:] / users
        apart = moments[1:, 1:] - users * np.outer(state.mean, state.mean)
        state.covariance = (apart + weight * np.diag(np.diag(state.covariance))) / (users + weight)

    def _sweep_items(self, state: State, users: Other) -> jax.Array:
        """Compute the items' posterior, and their prior and the noise from it."""
        moments = self._moments(state)
        prior = ItemPrior(*(self._same(part) for part in (state.map, state.variance, state.common, _DOUBT, moments)))
        tables, parts = [], []
        for block in range(self.items.blocks):
            some = slice(block * self.items.block, (block + 1) * self.items.block)
            *table, sums = solve_items(
                self._sums(self.rows.by_item, block, users),
                self.item_counts[:, some],
                self.kind_of_items[:, some],
                users.covariance,
                self.columns[:, some],
                self.features[:, some],
                state.noise[:, some],
                prior,
                mesh=self.mesh,
            )
            tables.append(table)
            parts.append(sums)
        total = _total(parts)
        state.items, state.noise, doubt = (jnp.concatenate(table, axis=1) for table in zip(*tables))
        state.common = max(float(total.left) / self.used, _FLOOR)
        state.spread = _mean_by_kind(total.covariance, self.item_kind)
        self._fit_maps(state, total.variance)
        return doubt

    def _moments(self, state: State) -> np.ndarray:
        """Second moments of ``(1, t_u)`` at the free factors, under the prior of users."""
        free = np.arange(self.width, self.width + self.free)
        moments = np.outer(*[np.concatenate([[1.0], state.mean[free]])] * 2)
        moments[1:, 1:] += state.covariance[np.ix_(free, free)]
        return moments

    def _fit_maps(self, state: State, variance: np.ndarray) -> None:
        """Fit the map of features to the items' posterior means, one variance for each source and column."""
        pulls = np.asarray(host(_pulls(self.features, state.items, self.seen)), np.float64)
        items = self.gram[0, 0]
        (invert,) = get_lapack_funcs(("trtri",), (self.gram,))
        widths = []
        for column in range(1 + self.free):
            penalty = np.full(len(self.gram), _FLOOR)
            for source, scale in enumerate(state.scale[:, column]):
                penalty[self.known.source == source] = 1 / max(scale, 1e-9)
            noise = state.variance[column]
            # With the inverse L of the Cholesky factor of a precision P, the inverse of P is L'L. Only its diagonal is
            # needed: the trace of gram times the inverse of P, by noise, is the width less penalty . diagonal.
            root, _ = invert(np.linalg.cholesky(self.gram / noise + np.diag(penalty)), lower=1)
            spread = np.square(root).sum(axis=0)
            state.map[:, column] = root.T @ (root @ pulls[:, column]) / noise
            for source in range(len(state.scale)):
                own = self.known.source == source
                total = np.square(state.map[own, column]).sum() + spread[own].sum()
                state.scale[source, column] = total / max(own.sum(), 1)
            widths.append(noise * (len(penalty) - penalty @ spread))
        errors = np.asarray(host(_errors(self.features, state.items, self.seen, self._same(state.map))), np.float64)
        state.variance = np.maximum((errors + variance + widths) / max(items, 1), _FLOOR)

    def _error(self, state: State, users: Other) -> float:
        """Root mean squared error on the rows that are held out; without any, the standard deviation of the noise."""
        if not self.rows.held.any():
            return float(np.sqrt(state.common))
        table = _item_table(self.columns, state.items, state.noise)
        user, item, rating = self.check
        found = np.asarray(host(predict(users.table, table, user, item, mesh=self.mesh)), np.float64)
        return float(np.sqrt(np.nanmean(np.square(found - rating))))


def _total(parts: Sequence[Sums]) -> Sums:
    """Add the sums of all blocks in float64."""
    return jax.tree.map(lambda *some: np.sum([np.asarray(part, np.float64) for part in some], axis=0), *parts)


def _mean_by_kind(total: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Divide sums of each kind by the number of its members."""
    members = np.bincount(kind, minlength=KINDS)
    return total / np.maximum(members, 1)[:, None, None]


@jax.jit
def _item_table(columns: jax.Array, items: jax.Array, noise: jax.Array) -> jax.Array:
    scale = 1 / jnp.sqrt(noise)[..., None]
    return jnp.concatenate([columns * scale, items[..., 1:] * scale, -items[..., :1] * scale, scale], axis=-1)


@jax.jit
def _user_table(tastes: jax.Array) -> jax.Array:
    one = jnp.ones_like(tastes[..., :1])
    return jnp.concatenate([one, tastes, 0 * one, one], axis=-1)


@jax.jit
def _gram(features: jax.Array, seen: jax.Array) -> jax.Array:
    return jnp.einsum("dif,dig,di->fg", features, features, seen)


@jax.jit
def _pulls(features: jax.Array, items: jax.Array, seen: jax.Array) -> jax.Array:
    return jnp.einsum("dif,dim,di->fm", features, items, seen)


@jax.jit
def _errors(features: jax.Array, items: jax.Array, seen: jax.Array, maps: jax.Array) -> jax.Array:
    return jnp.einsum("dim,di->m", jnp.square(items - features @ maps), seen)
