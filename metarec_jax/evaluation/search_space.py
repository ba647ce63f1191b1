"""Search spaces: options of a config, each with the values that a search may try."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metarec_jax.config.run import Config, from_json
from metarec_jax.core.errors import MetarecError

if TYPE_CHECKING:
    import optuna


SPACE: Mapping[str, Any] = {
    "train.rate": {"low": 5e-4, "high": 2e-2, "log": True},
    "train.weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
    "learner.hidden": [32, 64, 128, 256],
    "learner.dropout": {"low": 0.0, "high": 0.5},
    "learner.gate": {"low": 1.0, "high": 100.0, "log": True},
    "updater.rate": {"low": 0.05, "high": 3.0, "log": True},
    "updater.steps": [1, 3, 5],
}
"""The default search space."""


def read_space(tree: Any, base: Config) -> dict[str, Any]:
    """Check a search space.

    Args:
        tree: "section.option" -> a list of values, or {"low": A, "high": B}, with "log": true for a logarithmic scale.
        base: the config whose options are searched.

    Returns:
        The search space.

    Raises:
        MetarecError: there is no such option, a value is impossible, or a range is empty.
    """
    if not isinstance(tree, Mapping) or not tree:
        raise MetarecError('a search space is a JSON object such as {"train.rate": {"low": 0.001, "high": 0.01}}')
    for name, choice in tree.items():
        kind = _type_of(name, base)
        if isinstance(choice, list) and choice:
            for value in choice:
                with_options(base, {name: value})
            continue
        bounds = {"low", "high"}
        if not isinstance(choice, Mapping) or not bounds <= set(choice) <= bounds | {"log"} or kind not in (int, float):
            raise MetarecError(
                f'{name} is {choice!r}; give a list of values, or for a number {{"low": A, "high": B}}, '
                'with "log": true where it is searched by orders of magnitude'
            )
        for bound in bounds:
            with_options(base, {name: choice[bound]})
        if not choice["low"] < choice["high"] or (choice.get("log") and choice["low"] <= 0):
            raise MetarecError(f"{name} is searched from {choice['low']} to {choice['high']}, which is no range")
    return dict(tree)


def with_options(base: Config, options: Mapping[str, Any]) -> Config:
    """Change options of a config.

    Args:
        base: the config.
        options: "section.option" -> value.

    Returns:
        The changed config.

    Raises:
        MetarecError: there is no such option, or a value is impossible.
    """
    tree: dict[str, Any] = {}
    for name, value in options.items():
        section, _, field = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[field] = value
    return from_json(json.dumps(tree), where="the search space", base=base)


def suggest(trial: optuna.Trial, name: str, choice: Any, base: Config) -> Any:
    """Draw the value of an option for a trial.

    Args:
        trial: the trial.
        name: the option, as in the search space.
        choice: its values in the search space.
        base: the config whose options are searched.

    Returns:
        The value.
    """
    if isinstance(choice, list):
        return trial.suggest_categorical(name, choice)
    draw = trial.suggest_int if _type_of(name, base) is int else trial.suggest_float
    return draw(name, choice["low"], choice["high"], log=bool(choice.get("log")))


def options_of(base: Config, space: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a config itself has, for those options whose value lies in a search space.

    Args:
        base: the config.
        space: from `read_space`.

    Returns:
        "section.option" -> value.
    """
    found = {}
    for name, choice in space.items():
        value = base
        for part in name.split("."):
            value = getattr(value, part)
        if value in choice if isinstance(choice, list) else choice["low"] <= value <= choice["high"]:
            found[name] = value
    return found


def _type_of(name: str, base: Config) -> Any:
    at: Any = base
    *sections, field = name.split(".")
    for section in sections:
        at = getattr(at, section, None)
    hints = typing.get_type_hints(type(at)) if dataclasses.is_dataclass(at) else {}
    if field not in hints or dataclasses.is_dataclass(getattr(at, field)):
        raise MetarecError(f"there is no option {name!r} to search for; write it as in config.json, such as train.rate")
    return hints[field]
