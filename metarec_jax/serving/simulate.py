"""People who use a service, made of ratings that the model has not seen: `metarec simulate`.

A simulated user has some ratings to begin with and others that only the simulator knows. Shown a list, the user looks
at place ``r`` with probability ``1 / log2(1 + r)`` and then clicks as the known rating of the item there would have it:
with probability ``(2^g - 1) / 2^G``, where the rating lies ``g`` of ``G = 4`` quarters up the scale (the chance that
a graded item satisfies; Chapelle, Metzler, Zhang & Grinspan 2009, equation 4). An item that the user never rated is
clicked with a small probability. What was clicked is rated, as it was in the data, and the next list is made from one
rating more.

What comes out says that the machinery works, and how models compare under these assumptions; it is no measurement of
people.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
from typing import Any, NamedTuple

import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.serving.demo_users import Person
from metarec_jax.train.catalogue import Scale


class Habits(NamedTuple):
    """How simulated users behave.

    Attributes:
        start: ratings that a user begins with.
        lists: that each one looks at.
        k: places of a list.
        curiosity: the chance to click an item that the data says nothing about.
    """

    start: int = 5
    lists: int = 5
    k: int = 10
    curiosity: float = 0.02


class Client:
    """A connection to a service.

    Raises:
        MetarecError: the address is none, or the service refuses a request.
    """

    def __init__(self, address: str, token: str | None = None):
        parsed = urllib.parse.urlsplit(address)
        if parsed.scheme != "http" or not parsed.hostname:
            raise MetarecError(f"{address!r} is no address of a service: write one such as http://127.0.0.1:8765/")
        self._address = address
        self._connection = http.client.HTTPConnection(parsed.hostname, parsed.port or 80, timeout=60)
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What comes of a request: POST where there is a body, else GET."""
        try:
            method, content = ("GET", None) if body is None else ("POST", json.dumps(body))
            self._connection.request(method, path, content, self._headers)
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise MetarecError(f"{self._address}: nothing answers ({error}): is `metarec serve` running?") from error
        if answer.status >= 400:
            raise MetarecError(f"{self._address}: {path} is refused with status {answer.status}: {text.decode()[:300]}")
        return json.loads(text)


def attraction(rating: float | None, scale: Scale, curiosity: float) -> float:
    """The chance that somebody who looks at an item clicks it; `rating` is None where the data has none.

    >>> scale = Scale("rating", (1.0, 2.0, 3.0, 4.0, 5.0), 1.0, 5.0)
    >>> [attraction(rating, scale, 0.02) for rating in (None, 1.0, 3.0, 5.0)]
    [0.02, 0.0, 0.1875, 0.9375]
    """
    if rating is None:
        return curiosity
    if scale.kind == "click":
        return rating
    steps = 4 * (rating - scale.low) / (scale.high - scale.low)
    return (2**steps - 1) / 2**4


def simulate(
    client: Client,
    people: list[Person],
    scale: Scale,
    *,
    habits: Habits = Habits(),  # noqa: B008 - it does not change
    seed: int = 0,
    reporter: Reporter = QUIET,
) -> dict[str, int]:
    """Has people use a service.

    Args:
        client: of the service.
        people: with their whole histories; those with no more than they begin with are left out.
        scale: of the ratings.
        habits: of all of them.
        seed: of what they look at and click.
        reporter: told how far it is.

    Returns:
        How many users there were, lists, places shown, clicks, and ratings given.
    """
    people = [person for person in people if len(person.history) > habits.start]
    counts = dict.fromkeys(("users", "lists", "shown", "clicks", "ratings"), 0)
    with reporter.bar("users", len(people)) as advance:
        for number, person in enumerate(people):
            rng = np.random.default_rng([seed, number])
            known = dict(person.history[habits.start :])
            begun = [{"item": item, "rating": rating} for item, rating in person.history[: habits.start]]
            user = client.ask("/users", {"history": begun})["user"]
            for _ in range(habits.lists):
                shown = client.ask("/recommend", {"user": user, "k": habits.k})
                counts["lists"] += 1
                for card in shown["items"]:
                    counts["shown"] += 1
                    rating = known.get(card["id"])
                    looks = rng.random() < 1 / np.log2(1 + card["place"])
                    if not looks or rng.random() >= attraction(rating, scale, habits.curiosity):
                        continue
                    here = {"list_id": shown["list_id"], "item": card["id"]}
                    client.ask("/feedback", here | {"kind": "click"})
                    counts["clicks"] += 1
                    if rating is not None:
                        client.ask("/feedback", here | {"kind": "rating", "rating": rating})
                        counts["ratings"] += 1
            counts["users"] += 1
            advance(number + 1)
    return counts


def held_out(config: Config) -> list[Person]:
    """Test users of a run: people whom it has not seen.

    Raises:
        MetarecError: the run's data is not here.
    """
    from metarec_jax.data import load
    from metarec_jax.data.negatives import beside_clicks
    from metarec_jax.data.protocols import divide
    from metarec_jax.serving.demo_users import persons
    from metarec_jax.train.build import resolve

    data = beside_clicks(load(config.data, seed=config.seed), config)
    tested = divide(data, resolve(config, data), config.seed).scenarios[0].tasks.user
    return persons(data, np.unique(tested))
