"""A registry of kinds: names that a config may hold, each with the object that it selects.

A built-in kind is listed as name -> module. The module registers the kind with a decorator,
``@REGISTRY.register(name)``, and is imported when the kind is first asked for, so that listing names imports nothing.
Code outside the package registers with the same decorator, at any time before the name is used.
The registries of the package are in `metarec_jax.core.kinds`.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from metarec_jax.core.errors import MetarecError, shown

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Kinds by name.

    Args:
        option: the option that holds the name, for messages: "data.source".
        modules: name of a built-in kind -> module that registers it, in the order in which names are listed.
    """

    def __init__(self, option: str, modules: Mapping[str, str] | None = None) -> None:
        self.option = option
        self._modules = dict(modules or {})
        self._entries: dict[str, Entry] = {}
        self._plugins: dict[str, str] = {}

    def names(self) -> tuple[str, ...]:
        """The names of all kinds: built-in ones first, then the others in the order of their registration."""
        return tuple(dict.fromkeys((*self._modules, *self._entries)))

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that registers an object, and returns it unchanged.

        Raises:
            MetarecError: another object has this name.
        """

        def decorate(entry: Entry) -> Entry:
            self._import(name)  # a built-in kind must be registered before another one can take its name
            if name in self._entries:
                raise MetarecError(f"{self.option} {name!r} is registered already: choose another name")
            self._entries[name] = entry
            if name not in self._modules:
                self._plugins[name] = _caller()
            return entry

        return decorate

    def get(self, name: str) -> Entry:
        """Look up the object that `name` selects.

        Raises:
            MetarecError: no kind has this name.
        """
        if name not in self.names():
            raise unknown(self.option, name, self.names())
        self._import(name)
        return self._entries[name]

    def plugin_of(self, name: str) -> str:
        """The module that registered a kind from outside the package; "" for a built-in kind."""
        return self._plugins.get(name, "")

    def _import(self, name: str) -> None:
        """Import the module of a built-in kind, which registers it, unless its import is in progress."""
        if name in self._modules and name not in self._entries:
            importlib.import_module(self._modules[name])


def _caller() -> str:
    """The name of the first module outside the package among the callers of this function."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "metarec_jax":
        frame = frame.f_back
    return "" if frame is None else frame.f_globals.get("__name__", "")


def unknown(option: str, value: object, known: Sequence[object]) -> MetarecError:
    """Make the error that refuses a value of an option, with the most similar allowed values.

    Args:
        option: name of the option.
        value: the refused value.
        known: the allowed values.

    Returns:
        The error, to raise.

    Example:
        >>> print(unknown("data.source", "tabel", ("auto", "table")))
        data.source is 'tabel'; it must be one of 'auto', 'table'; did you mean 'table'?
    """
    near = difflib.get_close_matches(str(value)[:100], [choice for choice in known if isinstance(choice, str)], n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return MetarecError(f"{option} is {shown(value)}; it must be one of {', '.join(map(repr, known))}{hint}")


def name_of(registry: Registry[Any], *others: str) -> Any:
    """Make the type of a config field that holds a name of a registry.

    The command line reads it as a choice of the names registered so far. A config is checked against the registry
    itself (`choices_of`), so that it accepts kinds that are registered later.

    Args:
        registry: the registry.
        *others: further allowed names, such as "auto".

    Returns:
        The annotated type.
    """
    return Annotated[Literal[(*others, *registry.names())], registry, others]  # type: ignore[valid-type]


def choices_of(hint: Any) -> tuple[Any, ...]:
    """The values that a field of this type may hold: names of a registry, or of a Literal; () for other types."""
    registry = registry_of(hint)
    if registry is not None:
        return (*typing.get_args(hint)[2], *registry.names())
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def registry_of(hint: Any) -> Registry[Any] | None:
    """The registry whose names a field of this type holds; None for other types."""
    return next((note for note in typing.get_args(hint)[1:] if isinstance(note, Registry)), None)


def as_kind(registry: Registry[Any], config: Any) -> Any:
    """Convert a dataclass of options to the class that its kind registered.

    Args:
        registry: registry of the kinds; its entries are dataclasses that extend the class of common options.
        config: options, with a field ``kind``; missing options of the kind get their defaults.

    Returns:
        An instance of the registered class.
    """
    own = registry.get(config.kind)
    return config if type(config) is own else _as(own, config)


def normal_form(registry: Registry[Any], common: type[Any], config: Any) -> Any:
    """Convert options to a normal form in which equal options compare equal.

    Args:
        registry: registry of the kinds.
        common: class of the options that all kinds have. Its default kind has no further options, and is not imported.
        config: the options.

    Returns:
        An instance of the kind's class if the kind has options of its own, otherwise of `common`.
    """
    own = common if config.kind == common.__dataclass_fields__["kind"].default else registry.get(config.kind)
    wanted = own if len(dataclasses.fields(own)) > len(dataclasses.fields(common)) else common
    return config if type(config) is wanted else _as(wanted, config)


def _as(wanted: type[Any], config: Any) -> Any:
    given = {field.name for field in dataclasses.fields(config)}
    return wanted(**{f.name: getattr(config, f.name) for f in dataclasses.fields(wanted) if f.name in given})
