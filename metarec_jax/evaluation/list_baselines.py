"""Baselines of lists over the whole catalogue, each a function from the clicks of users to scores of all items.

They are fitted to the clicks of training users: a matrix ``X`` [users, items] of 0 and 1. New users need no training.
`metarec_jax.evaluation.tune_lists` chooses their hyperparameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy import linalg, sparse

from metarec_jax.core.variance import standardisation
from metarec_jax.evaluation.lists import Scores, in_chunks
from metarec_jax.factors.implicit import Penalties, fit_clicks, fold_in_many

MOST_EASE_ITEMS = 20_000
"""Greatest number of items of EASE, whose matrix is items x items."""
SWEEPS = 10
"""Sweeps of implicit least squares."""
_FLOATS_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class ListBaseline:
    """A fitted baseline.

    Attributes:
        name: name of the row in the table.
        definition: one-line description.
        scores: lists -> scores of all candidates.
        settings: hyperparameters by name.
    """

    name: str
    definition: str
    scores: Scores
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)


def at_random(items: int) -> ListBaseline:
    """All scores are tied, so that metrics are expectations over every order.

    Args:
        items: number of candidates.

    Returns:
        The baseline.
    """
    return ListBaseline(
        "random", "every order counts", in_chunks(lambda clicked: np.zeros((clicked.shape[0], items), np.float32))
    )


def popularity(train: sparse.csr_matrix) -> ListBaseline:
    """Rank by the number of training clicks.

    Args:
        train: ``X``.

    Returns:
        The baseline.
    """
    count = np.asarray(train.sum(axis=0), np.float32).ravel()
    return ListBaseline(
        "popularity",
        "number of training clicks",
        in_chunks(lambda clicked: np.broadcast_to(count, (clicked.shape[0], len(count)))),
    )


def item_knn(train: sparse.csr_matrix, candidates: Sequence[tuple[int, float]]) -> Iterator[ListBaseline]:
    """Sum of cosine similarities between an item and those of its nearest neighbours that the user clicked.

    With ``G = X^T X`` the similarity of items i and j is ``G_ij / (sqrt(G_ii G_jj) + shrinkage)``.

    Args:
        train: ``X``.
        candidates: (neighbours of an item, shrinkage) of each baseline.

    Yields:
        The baselines, those of one shrinkage together.
    """
    for shrinkage in dict.fromkeys(s for _, s in candidates):
        wanted = [k for k, s in candidates if s == shrinkage]
        item, similarity = _neighbours(train, max(wanted), shrinkage)
        for k in wanted:
            owner = np.repeat(np.arange(len(item)), min(k, item.shape[1]))
            near = item[:, :k].ravel(), owner
            matrix = sparse.csr_matrix((similarity[:, :k].ravel(), near), shape=(len(item), len(item)))
            yield ListBaseline(
                "item-kNN",
                "cosine similarity to the clicked items among an item's nearest neighbours",
                in_chunks(lambda clicked, matrix=matrix: (clicked @ matrix).toarray()),
                {"neighbours": float(k), "shrinkage": shrinkage},
            )


def _neighbours(train: sparse.csr_matrix, most: int, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
    """The nearest neighbours of each item, the nearest first: int [items, most] and their similarities."""
    count = np.asarray(train.sum(axis=0), np.float64).ravel()
    items = len(count)
    most = min(most, items)
    columns = train.tocsc()
    found_item, found = np.zeros((items, most), np.int32), np.zeros((items, most), np.float32)
    step = max(1, _FLOATS_AT_ONCE // items)
    for first in range(0, items, step):
        part = slice(first, min(first + step, items))
        own = sparse.csc_matrix(columns[:, part])
        shared = (own.transpose() @ train).toarray().astype(np.float64)
        norm = np.sqrt(count[part, None] * count[None, :]) + shrinkage
        similarity = np.divide(shared, norm, out=np.zeros_like(shared), where=shared > 0)
        similarity[np.arange(len(shared)), np.arange(part.start, part.stop)] = 0
        near = np.argsort(-similarity, axis=1, kind="stable")[:, :most]
        found_item[part], found[part] = near, np.take_along_axis(similarity, near, axis=1)
    return found_item, found


def ease(train: sparse.csr_matrix, ridges: Sequence[float]) -> Iterator[ListBaseline]:
    """EASE: linear regression of each item on all others in closed form (Steck 2019).

    With ``P = (X^T X + ridge I)^-1`` the weights are ``B_ij = -P_ij / P_jj``, 0 on the diagonal; the scores of a user
    are ``x B``.

    Args:
        train: ``X``, of at most `MOST_EASE_ITEMS` items.
        ridges: ridge of each baseline.

    Yields:
        The baselines.
    """
    gram = (train.T @ train).toarray().astype(np.float32)
    for ridge in ridges:
        weight = _ease_weights(gram, ridge)
        yield ListBaseline(
            "EASE",
            "linear regression of each item on all others in closed form",
            in_chunks(lambda clicked, weight=weight: clicked @ weight),
            {"ridge": ridge},
        )


def _ease_weights(gram: Float[np.ndarray, "items items"], ridge: float) -> Float[np.ndarray, "items items"]:
    """``B``, float32; the inverse is computed in float64, in place of one copy of the matrix."""
    work = np.asfortranarray(gram, np.float64)
    work[np.diag_indices(len(work))] += ridge
    factorise, invert = linalg.get_lapack_funcs(("potrf", "potri"), (work,))
    work, failed = factorise(work, lower=True, overwrite_a=True, clean=False)
    if not failed:
        work, failed = invert(work, lower=True, overwrite_c=True)
    if failed:
        raise ValueError(f"the Gram matrix of clicks with ridge {ridge} is not positive definite")
    diagonal = np.diag(work).copy()
    weight = np.tril(work).astype(np.float32)
    weight += np.tril(work, -1).astype(np.float32).T
    weight /= -diagonal.astype(np.float32)
    np.fill_diagonal(weight, 0)
    return weight


def ials(train: sparse.csr_matrix, candidates: Sequence[tuple[int, float, float]]) -> Iterator[ListBaseline]:
    """Implicit least squares; the factors of a new user are folded in (`metarec_jax.factors.implicit`).

    Args:
        train: ``X``.
        candidates: (rank, alpha, ridge) of each baseline.

    Yields:
        The baselines.
    """
    users, items = train.shape
    user, item = train.nonzero()
    for rank, alpha, ridge in candidates:
        penalties = Penalties(alpha, ridge)
        ones = np.ones(len(user), np.float32)
        fitted = fit_clicks(user, item, ones, users=users, items=items, rank=rank, penalties=penalties, sweeps=SWEEPS)
        yield ListBaseline(
            "iALS",
            "implicit least squares, new users folded in",
            in_chunks(_folding(np.asarray(fitted.items, np.float32), penalties)),
            {"rank": float(rank), "alpha": alpha, "ridge": ridge},
        )


def _folding(items: Float[np.ndarray, "items rank"], penalties: Penalties) -> Callable[[sparse.csr_matrix], np.ndarray]:
    """A function from clicks to scores."""

    def scores(clicked: sparse.csr_matrix) -> np.ndarray:
        user, item = clicked.nonzero()
        return fold_in_many(user, item, clicked.shape[0], items, penalties) @ items.T

    return scores


def text_similarity(embeddings: Float[np.ndarray, "items hidden"], away: Sequence[float]) -> Iterator[ListBaseline]:
    """Cosine similarity between an item's text and the mean text of what the user clicked (Rocchio 1971).

    The query of a user is the mean embedding of the clicked items, minus `away` times the mean of all items.

    Args:
        embeddings: embeddings of the candidates' texts; each is divided by its norm.
        away: weight of the mean of all items, of each baseline; 0 is the plain mean embedding.

    Yields:
        The baselines.
    """
    norm = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = (embeddings / np.maximum(norm, 1e-12)).astype(np.float32)
    centre = unit.mean(axis=0)
    if not standardisation(unit.astype(np.float64)).scale:
        unit = np.zeros_like(unit)
    for weight in away:

        def score(clicked: sparse.csr_matrix, weight: float = weight) -> np.ndarray:
            count = np.maximum(np.diff(clicked.indptr), 1)[:, None]
            return (clicked @ unit / count - weight * centre) @ unit.T

        yield ListBaseline(
            "text similarity",
            "similarity to the mean text embedding of the clicked items, less that of the catalogue",
            in_chunks(score),
            {"away": weight},
        )
