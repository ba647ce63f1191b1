"""Reads and writes frozen dataclasses of choices as JSON."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from typing import Any, TypeVar

from metarec_jax.config.checks import as_type
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.arguments import with_type
from metarec_jax.core.errors import MetarecError, listed, shown
from metarec_jax.core.json_files import parse_json
from metarec_jax.core.kinds import LEARNERS, UPDATERS
from metarec_jax.core.registry import as_kind, name_of

Chosen = TypeVar("Chosen")


def to_json(config: Any) -> str:
    """A `Config`, or other frozen dataclass of choices, as JSON text, which `from_json` or `parse` reads back equal."""
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise MetarecError(f"to_json: config is {with_type(config)}; pass a config, such as that of `preset`")
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def parse(text: str, *, where: str, base: Chosen) -> Chosen:
    """Build a config from JSON text.

    Args:
        text: a JSON object with some of the fields of `base`, nested.
        where: name of the text in errors, such as its file name.
        base: frozen dataclass of options; gives the type, and the values of fields that `text` leaves out.

    Returns:
        `base` with the fields of `text` replaced.

    Raises:
        MetarecError: invalid JSON, an unknown field, a value of the wrong type, or a value that is not allowed.
    """
    return _build(base, parse_json(text, where=where), where, "")


def _build(base: Any, tree: Any, where: str, prefix: str) -> Any:
    if not isinstance(tree, dict):
        raise MetarecError(f"{where}: {prefix.rstrip('.') or 'the file'} must be an object {{...}}, not {shown(tree)}")
    base = _of_kind(base, tree, where, prefix)
    hints = typing.get_type_hints(type(base), include_extras=True)
    hints = {field.name: hints[field.name] for field in dataclasses.fields(base)}
    changes = {}
    for name, value in tree.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {listed(tuple(hints), 40)}"
            raise MetarecError(f"{where}: there is no option {shown(prefix + name)}{hint}")
        if dataclasses.is_dataclass(hints[name]):
            changes[name] = _build(getattr(base, name), value, where, f"{prefix}{name}.")
        else:
            changes[name] = _checked(value, hints[name], where, prefix + name)
    try:
        return dataclasses.replace(base, **changes)
    except MetarecError as error:
        raise MetarecError(f"{where}: {error}") from error


def _of_kind(base: Any, tree: dict[str, Any], where: str, prefix: str) -> Any:
    """`base` with the kind that `tree` names, as an instance of the class that this kind registered."""
    registry = LEARNERS if isinstance(base, LearnerConfig) else UPDATERS if isinstance(base, UpdaterConfig) else None
    if registry is None or tree.get("kind", base.kind) == base.kind:
        return base
    kind = _checked(tree["kind"], name_of(registry), where, f"{prefix}kind")
    try:
        return as_kind(registry, dataclasses.replace(base, kind=kind))
    except MetarecError as error:
        raise MetarecError(f"{where}: {error}") from error


def _checked(value: Any, hint: Any, where: str, name: str) -> Any:
    """`value` as the field's type, or an error that says what was expected."""
    try:
        return as_type(value, hint, name)
    except MetarecError as error:
        raise MetarecError(f"{where}: {error}") from error
