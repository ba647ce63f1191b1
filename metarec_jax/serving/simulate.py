"""`metarec simulate`: simulated users of a service, from ratings that the model was not trained on.

A simulated user starts with some ratings; the simulator withholds the others. In a list, the user examines place ``r``
with probability ``1 / log2(1 + r)`` and clicks an examined item with probability ``(2^g - 1) / 2^G``, where ``g`` is
the grade of its rating, from 0 at the lowest end of the scale to ``G = 4`` at the highest (the probability that a
graded item satisfies a user; Chapelle, Metzler, Zhang & Grinspan 2009, equation 4). An item without a rating is clicked
with a small probability. A clicked item receives its rating in the data, which the next list takes into account.

The counts serve to test logging, comparison and estimation, and to compare models under these assumptions. They do not
measure the behaviour of real users.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.extras import needs_extra
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.scale import STANDARD_LOW, Scale
from metarec_jax.data import load
from metarec_jax.data.negatives import beside_clicks
from metarec_jax.data.protocols import divide
from metarec_jax.serving.demo_users import Person, persons
from metarec_jax.train.build import resolve

with needs_extra("serve"):
    import httpx

TIMEOUT = 60.0
"""Timeout of a request, in seconds."""


class Habits(NamedTuple):
    """Behaviour of all simulated users.

    Attributes:
        start: number of ratings that a user has at the start; users with no further ratings are left out.
        lists: number of lists that each user sees.
        k: number of places of a list.
        curiosity: probability of a click on an examined item without a rating in the data.
    """

    start: int = 5
    lists: int = 5
    k: int = 10
    curiosity: float = 0.02


class Client:
    """A connection to a service.

    Args:
        address: address of the service, such as http://127.0.0.1:8765/.
        token: token of the service; None if it requires no token.

    Raises:
        MetarecError: the address is not an HTTP address.
    """

    def __init__(self, address: str, token: str | None = None):
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise MetarecError(f"{address!r} is no address of a service: write one such as http://127.0.0.1:8765/")
        self._address = address
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False)  # without a proxy

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a request and return its answer.

        Args:
            path: path of the route.
            body: body of a POST request; None sends a GET request.

        Returns:
            The JSON body of the answer.

        Raises:
            MetarecError: the service does not answer, or answers with an error status.
        """
        try:
            answer = self._http.get(path) if body is None else self._http.post(path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: the name of no host
            raise MetarecError(
                f"{self._address}: no service answers ({error}): start it with `metarec serve`"
            ) from error
        if answer.is_error:
            raise MetarecError(
                f"{self._address}: {path} is refused with status {answer.status_code}: {answer.text[:300]}"
            )
        return answer.json()


def attraction(rating: float | None, scale: Scale, curiosity: float) -> float:
    """Return the probability that a user who examines an item clicks it.

    Args:
        rating: rating of the item; None if the data has none.
        scale: scale of the ratings.
        curiosity: the probability for an item without a rating.

    Returns:
        The probability, 0 to 1.

    >>> from metarec_jax.core.scale import STARS
    >>> [attraction(rating, STARS, 0.02) for rating in (None, 1.0, 3.0, 5.0)]
    [0.02, 0.0, 0.1875, 0.9375]
    """
    if rating is None:
        return curiosity
    if scale.kind == "click":
        return rating
    return (2 ** (scale.standard(rating) - STANDARD_LOW) - 1) / 2**4


def simulate(
    client: Client,
    people: list[Person],
    scale: Scale,
    *,
    habits: Habits = Habits(),  # noqa: B008 - immutable
    seed: int = 0,
    reporter: Reporter = QUIET,
) -> dict[str, int]:
    """Run simulated users against a service, one after another.

    Args:
        client: the connection to the service.
        people: users with their complete histories.
        scale: scale of the ratings.
        habits: behaviour of all users.
        seed: seed of the users' actions.
        reporter: receives the progress.

    Returns:
        The number of users, lists, places shown, clicks and ratings, by name.

    Raises:
        MetarecError: the service does not answer, or refuses a request.
    """
    people = [person for person in people if len(person.history) > habits.start]
    counts = dict.fromkeys(("users", "lists", "shown", "clicks", "ratings"), 0)
    with reporter.bar("users", len(people)) as advance:
        for number, person in enumerate(people):
            rng = np.random.default_rng([seed, number])
            hidden = dict(person.history[habits.start :])
            history = [{"item": item, "rating": rating} for item, rating in person.history[: habits.start]]
            user = client.ask("/users", {"history": history})["user"]
            for _ in range(habits.lists):
                shown = client.ask("/recommend", {"user": user, "k": habits.k})
                counts["lists"] += 1
                for card in shown["items"]:
                    counts["shown"] += 1
                    rating = hidden.get(card["id"])
                    looks = rng.random() < 1 / np.log2(1 + card["place"])
                    if not looks or rng.random() >= attraction(rating, scale, habits.curiosity):
                        continue
                    place = {"list_id": shown["list_id"], "item": card["id"]}
                    client.ask("/feedback", place | {"kind": "click"})
                    counts["clicks"] += 1
                    if rating is not None:
                        client.ask("/feedback", place | {"kind": "rating", "rating": rating})
                        counts["ratings"] += 1
            counts["users"] += 1
            advance(number + 1)
    return counts


def held_out(config: Config) -> list[Person]:
    """Return the test users of a run, whose ratings the model was not trained on.

    Raises:
        MetarecError: the run's data is not on this machine.
    """
    data = beside_clicks(load(config.data, seed=config.seed), config)
    tested = divide(data, resolve(config, data), config.seed).scenarios[0].tasks.user
    return persons(data, np.unique(tested))
