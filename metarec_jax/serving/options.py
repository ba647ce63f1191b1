"""Options of `metarec serve` and `metarec simulate`; their docstrings are the help text. Imports no JAX."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True)
class ServeArguments:
    """Serve a trained run over HTTP, with a page to try it on.

    Needs the extra `serve`: pip install 'metarec_jax[serve]'. Feedback, users and new items are stored in a folder, and
    are available again after a restart. /openapi.json and docs/serving.md describe the routes.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder of a finished training."""
    against: Annotated[str, tyro.conf.arg(metavar="RUN_B")] = ""
    """Second run, of the same items, to compare with."""
    mode: Literal["auto", "single", "ab", "interleave"] = "auto"
    """How a second run is compared: "ab" assigns every user to one of the two; "interleave" fills each list from both
    in turn. "auto" is "ab" with a second run, else "single"."""
    share: float = 0.5
    """For mode "ab": share of the users that are assigned to the second run."""
    explore: float = 0.0
    """Probability that a list is drawn at random from the best items, which makes off-policy evaluation possible."""
    pool: int = 50
    """Number of best items that such a list is drawn from."""
    host: str = "127.0.0.1"
    """Address to listen on. One that other machines can reach requires a token in $METAREC_TOKEN."""
    port: int = 8765
    """Port to listen on; 0 is any free port."""
    store: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    """Folder of feedback, users and new items. "" is RUN/service."""
    wait_ms: float = 3.0
    """Milliseconds that a request waits for others, to be computed with them in one batch."""
    together: int = 64
    """Largest number of requests in a batch; 1 computes each alone."""
    people: bool = True
    """Offer test users of a public data set on the page."""
    open: bool = False
    """Open the page in the browser of this desktop, where there is one."""


@dataclasses.dataclass(frozen=True)
class SimulateArguments:
    """Simulate users of a running service: test users of the run's data, who click and rate as in their ratings.

    metarec_jax.serving.simulate defines their behavior. `metarec feedback` evaluates the result.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder that is served."""
    address: str = "http://127.0.0.1:8765/"
    """Address of the service. If it requires a token, set $METAREC_TOKEN."""
    users: int = 0
    """Number of users; 0 is all test users."""
    lists: int = 5
    """Lists shown to each user."""
    k: Annotated[int, tyro.conf.arg(aliases=("-k",), metavar="N")] = 10
    """Items in a list."""
    start: int = 5
    """Ratings that each user has before the first list."""
    seed: int = 0
    """Seed of the users' actions."""
