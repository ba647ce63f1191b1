"""Constants of the item factors, tuned on validation users of MovieLens-100K (docs/factors.md)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
    """Prior variances, in squares of a quarter of the rating scale, and sizes.

    Attributes:
        rank: number of factors of an item.
        bias: variance of users' biases.
        text, details, popularity, vectors: variance of a rating that users' weights on each source of item features
            contribute (details: for each detail).
        item: variance of a rating that factors independent of the item's features contribute.
        strength: weight of the prior on the covariance of tastes, in users.
        choices: prior strength, in users, of the effect of which items a user rated on the expected taste; 0 disables
            it.
        profile: the same for the effect of the user's profile.
        noise: initial variance of a rating around its expectation.
        iterations: iterations of expectation maximisation.
        mean_text, mean_details, mean_popularity, mean_vectors: variance of item means that a source explains.
        mean_item: variance of item means that no source explains.
        mean_noise: variance of a rating around its item's mean.
        mean_users: pseudo-count of ratings that shrinks a user's bias while item means are estimated.
        items: greatest number of items whose factors are fitted to ratings; factors of other items are predicted from
            their features.
        folds: number of folds of training users in cross-fitting.
    """

    rank: int
    bias: float = 0.16
    text: float = 0.25
    details: float = 0.06
    popularity: float = 0.075
    vectors: float = 0.25
    item: float = 0.5
    strength: float = 20.0
    choices: float = 100.0
    profile: float = 2000.0
    noise: float = 0.8
    iterations: int = 12
    mean_text: float = 0.02
    mean_details: float = 0.15
    mean_popularity: float = 0.02
    mean_vectors: float = 0.02
    mean_item: float = 0.34
    mean_noise: float = 2.6
    mean_users: float = 0.7
    items: int = 4096
    folds: int = 5
