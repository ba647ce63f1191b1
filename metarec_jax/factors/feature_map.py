"""Ridge regression from features of items, with the penalty of the least generalised cross-validation error.

Golub, Heath & Wahba 1979, "Generalized cross-validation as a method for choosing a good ridge parameter".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def feature_map(
    features: Float[np.ndarray, "items features"],
    targets: Float[np.ndarray, "items targets"],
    weight: Float[np.ndarray, " items"],
) -> Float[np.ndarray, "features_and_one targets"]:
    """Fit a linear map from features to targets, with one penalty for all of them.

    Args:
        features: features of the items, of about mean 0.
        targets: what is predicted of each item.
        weight: weight of each item's squared errors, above 0.

    Returns:
        The map; its first row is the intercept, the weighted mean of the targets.
    """
    middle = (weight @ targets) / weight.sum()
    apart = targets - middle
    weighted = features * weight[:, None]
    squares, basis = np.linalg.eigh(features.T @ weighted)
    squares = np.maximum(squares, 0.0)
    along = basis.T @ (weighted.T @ apart)  # inner products of targets and principal features
    explained = np.square(along).sum(axis=1)
    total = float((weight @ np.square(apart)).sum())

    def error(strength: float) -> float:
        kept = 1 / (squares + strength)
        # Residual sum of squares of the shrunk fit, and the rows that it does not use up.
        left = total - (explained * kept * (2 - squares * kept)).sum()
        rows = len(features) - (squares * kept).sum()
        return float(max(left, 0.0) / max(rows, 1e-9) ** 2)

    unit = max(float(squares.sum()) / max(min(features.shape), 1), 1e-12)
    strength = min(np.geomspace(1e-3, 1e3, 25) * unit, key=error)
    return np.concatenate([middle[None], basis @ (along / (squares + strength)[:, None])])
