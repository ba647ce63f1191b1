"""Privacy accounting: the noise that a guarantee needs, and the privacy loss so far.

The guarantee is (epsilon, delta)-differential privacy of the trained parameters under adding or removing one training
user with all ratings (Dwork & Roth 2014, definition 2.4). Every outer step samples each user with probability
users_per_step / users, independently. The privacy loss is that of composed Poisson-subsampled Gaussian mechanisms,
computed numerically from privacy loss distributions by Google's dp-accounting (Koskela et al. 2020, arXiv 1906.03049;
Doroshenko et al. 2022, arXiv 2207.04380).
"""

from __future__ import annotations

import functools
import json
import secrets
from pathlib import Path
from typing import Any, NamedTuple

from metarec_jax.config.run import Config
from metarec_jax.core.atomic_files import explained, write_text
from metarec_jax.core.checked_files import RESTORE, reading
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.json_files import read_json
from metarec_jax.train.run_folder import Run

LEAST_NOISE = 0.25
"""Least noise: no meaningful epsilon allows less, and its accounting would take gigabytes."""
_MOST_NOISE = 1e4
_NO_SECRET = "what is left of this private training cannot be accounted for; train a new run"
_PRECISION = 1e-3
_COVERED = {
    "run": "everything that a recommender reads of the run",
    "updates": "the outer steps alone, not item statistics, factors or user texts",
}


class Plan(NamedTuple):
    """The mechanism of a whole training.

    Attributes:
        users: number of training users, which is not treated as secret.
        rate: probability of a user to be in a step.
        steps: outer steps of a complete training.
        epsilon, delta: privacy budget of a complete training.
        clip: greatest norm of a user's gradient.
        noise: standard deviation of the noise over `clip`.
        covers: see `metarec_jax.privacy.options.PrivacyConfig`.
    """

    users: int
    rate: float
    steps: int
    epsilon: float
    delta: float
    clip: float
    noise: float
    covers: str


def spent_file(run: Run) -> Path:
    """Path of the JSON file with the privacy loss so far, in the run folder."""
    return run.folder / "privacy.json"


def secret_file(run: Run) -> Path:
    """Path of the file with the secret seed of the noise, in the run folder until training has ended."""
    return run.folder / "secret.json"


def make_plan(config: Config, users: int, steps: int) -> Plan:
    """Find the least noise with which a training stays within its privacy budget.

    Args:
        config: config of the run, with the budget.
        users: number of training users.
        steps: outer steps of a complete training.

    Returns:
        The mechanism.

    Raises:
        MetarecError: dp-accounting is not installed, delta is too large for a guarantee, or epsilon is not reachable.
    """
    wanted = config.privacy
    delta = wanted.delta or 0.1 / users
    if delta >= 1 / users:
        raise MetarecError(
            f"privacy.delta is {delta:g}, but with {users} training users a mechanism that gives one of them away is "
            f"within it: take less than {1 / users:.2g}, or 0 for a tenth of that"
        )
    rate = min(config.train.users_per_step / users, 1.0)
    noise = _least_noise(wanted.epsilon, delta, rate, steps)
    return Plan(users, rate, steps, wanted.epsilon, delta, wanted.clip, noise, wanted.covers)


def spent(plan: Plan, steps: int) -> float:
    """The epsilon that some outer steps have spent, at the plan's delta.

    Args:
        plan: the mechanism.
        steps: number of outer steps.

    Returns:
        epsilon.
    """
    return _epsilon(plan.noise, plan.delta, plan.rate, steps)


def write(run: Run, plan: Plan, steps: int) -> dict[str, Any]:
    """Write the plan and the privacy loss so far to ``privacy.json`` in the run folder.

    Args:
        run: the run folder.
        plan: the mechanism.
        steps: outer steps so far.

    Returns:
        The written document.
    """
    document = {
        **plan._asdict(),
        "steps_taken": steps,
        "epsilon_spent": spent(plan, steps),
        "unit": "user (add or remove one)",
        "sampling": "Poisson",
        "accountant": "dp-accounting, privacy loss distributions",
    }
    write_text(spent_file(run), json.dumps(document, indent=1) + "\n")
    return document


def read(run: Run) -> dict[str, Any] | None:
    """What `write` wrote; None for a run that is not private."""
    if not spent_file(run).exists():
        return None
    found = read_json(spent_file(run), remedy=RESTORE)
    with reading(spent_file(run)):
        numbers = {name: float(found[name]) for name in ("epsilon_spent", "epsilon", "delta")}
        if found["covers"] not in ("run", "updates"):
            raise ValueError(f"covers is {shown(found['covers'])}")
    return {**found, **numbers}


def secret(run: Run) -> tuple[int, ...]:
    """The secret seed of sampling and noise: eight random numbers, stored in the run folder until training ends.

    The run's own seed is not used, since it is part of the run: anyone who has the run could subtract the noise.
    """
    path = secret_file(run)
    if not path.exists():
        write_text(path, json.dumps([secrets.randbits(32) for _ in range(8)]), private=True)
    with reading(path, _NO_SECRET):
        found = tuple(read_json(path, remedy=_NO_SECRET))
        if len(found) != 8 or not all(type(number) is int for number in found):
            raise ValueError("it does not hold eight numbers")
    return found


def forget(run: Run) -> None:
    """Removes the secret of a training that has ended."""
    with explained(secret_file(run)):
        secret_file(run).unlink(missing_ok=True)


def unfinished(run: Run) -> str:
    """A warning where a run's folder still holds the secret that its noise is drawn from; "" for other runs."""
    if not secret_file(run).exists():
        return ""
    return (
        f"{secret_file(run)} is there until the training has ended, and whoever has it can take the noise away: give "
        f"nobody this run yet, and train it to its end with `metarec train --resume {path_argument(run.folder)}`"
    )


def statement(document: dict[str, Any]) -> str:
    """The privacy guarantee of a run, as a sentence."""
    promise = (
        f"private: epsilon {document['epsilon_spent']:.3g} spent of {document['epsilon']:g} at delta "
        f"{document['delta']:.2g}, a user as the unit"
    )
    if document["covers"] == "run":
        return promise
    return f"{promise}; the updates alone are covered, not what else was learned of training users"


def guarantee(run: Run) -> dict[str, Any] | None:
    """What a model card says of the privacy of a run (`metarec_jax.config.training.Training.guarantee`).

    Args:
        run: the run folder.

    Returns:
        ``statement``, ``details`` (texts by name), ``epsilon``, ``epsilon_spent``, ``delta`` and ``covers``; None
        before the first checkpoint.
    """
    found = read(run)
    if found is None:
        return None
    details = {
        "epsilon": f"{found['epsilon_spent']:.4g} spent of {found['epsilon']:g}",
        "delta": f"{found['delta']:.4g}",
        "unit": str(found.get("unit", "")),
        "covers": _COVERED[found["covers"]],
        "accountant": str(found.get("accountant", "")),
        "warning": unfinished(run),
    }
    numbers = {name: found[name] for name in ("epsilon", "epsilon_spent", "delta", "covers")}
    return {"statement": statement(found), "details": details, **numbers}


@functools.lru_cache(maxsize=64)
def _epsilon(noise: float, delta: float, rate: float, steps: int) -> float:
    if steps == 0:
        return 0.0
    accounting = _library()
    accountant = _accountant(accounting)
    accountant.compose(_event(accounting, noise, rate, steps))
    return float(accountant.get_epsilon(delta))


@functools.lru_cache(maxsize=64)
def _least_noise(epsilon: float, delta: float, rate: float, steps: int) -> float:
    accounting = _library()
    enough = 1.0
    while _epsilon(enough, delta, rate, steps) > epsilon:
        enough *= 2
        if enough > _MOST_NOISE:
            raise MetarecError(
                f"privacy.epsilon {epsilon:g} at delta {delta:g} is out of reach in {steps} outer steps: allow more, "
                "or train fewer epochs"
            )
    while _epsilon(enough / 2, delta, rate, steps) <= epsilon:
        enough /= 2
        if enough <= LEAST_NOISE:
            return enough
    return float(
        accounting.calibrate_dp_mechanism(
            lambda: _accountant(accounting),
            lambda noise: _event(accounting, noise, rate, steps),
            epsilon,
            delta,
            accounting.ExplicitBracketInterval(enough / 2, enough),
            tol=_PRECISION,
        )
    )


def _accountant(accounting: Any) -> Any:
    # The result is an upper bound for any discretisation interval. Ten times the library's default interval takes a
    # tenth of the time, and agrees to four digits.
    relation = accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    return accounting.pld.PLDAccountant(relation, value_discretization_interval=1e-3)


def _event(accounting: Any, noise: float, rate: float, steps: int) -> Any:
    gaussian = accounting.GaussianDpEvent(noise)
    return accounting.SelfComposedDpEvent(accounting.PoissonSampledDpEvent(rate, gaussian), steps)


def _library() -> Any:
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError as error:
        raise MetarecError(
            "privacy.epsilon needs an accountant: install it with `pip install 'metarec_jax[privacy]'` (dp-accounting)"
        ) from error
    return dp_accounting
