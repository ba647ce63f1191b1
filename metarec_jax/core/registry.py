"""A registry of kinds: names that a config may hold, each with the object that it selects.

A built-in kind is listed as name -> module. The module registers the kind with a decorator,
``@REGISTRY.register(name)``, and is imported when the kind is first asked for, so that listing names imports nothing.
Code outside the package registers with the same decorator, at any time before the name is used.
The registries of the package are in `metarec_jax.core.kinds`.
"""

from __future__ import annotations

import difflib
import importlib
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from metarec_jax.core.errors import MetarecError

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Kinds by name.

    Args:
        option: the option that holds the name, as messages call it: "data.source".
        modules: the module that registers each built-in kind, by name, in the order in which names are listed.
    """

    def __init__(self, option: str, modules: Mapping[str, str] | None = None) -> None:
        self.option = option
        self._modules = dict(modules or {})
        self._entries: dict[str, Entry] = {}

    def names(self) -> tuple[str, ...]:
        """The names of all kinds: built-in ones first, then the others in the order of their registration."""
        return tuple(dict.fromkeys((*self._modules, *self._entries)))

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that registers an object, and returns it unchanged.

        Raises:
            MetarecError: another object has this name.
        """

        def decorate(entry: Entry) -> Entry:
            self._import(name)  # so that a built-in kind is there before another one claims its name
            if name in self._entries:
                raise MetarecError(f"{self.option} {name!r} is registered already: choose another name")
            self._entries[name] = entry
            return entry

        return decorate

    def get(self, name: str) -> Entry:
        """The object that `name` selects.

        Raises:
            MetarecError: no kind has this name.
        """
        if name not in self.names():
            raise unknown(self.option, name, self.names())
        self._import(name)
        return self._entries[name]

    def _import(self, name: str) -> None:
        """Import the module of a built-in kind, which registers it; a module that is being imported is left to it."""
        if name in self._modules and name not in self._entries:
            importlib.import_module(self._modules[name])


def unknown(option: str, value: object, known: Sequence[object]) -> MetarecError:
    """The error that refuses a value of `option` that is not among those `known`, and names the nearest of them.

    Example:
        >>> print(unknown("data.source", "tabel", ("auto", "table")))
        data.source is 'tabel'; it must be one of 'auto', 'table'; did you mean 'table'?
    """
    near = difflib.get_close_matches(str(value), [choice for choice in known if isinstance(choice, str)], n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return MetarecError(f"{option} is {value!r}; it must be one of {', '.join(map(repr, known))}{hint}")


def name_of(registry: Registry[Any]) -> Any:
    """The type of a config field that holds a name of `registry`.

    The command line reads it as a choice of the names registered so far; a config is checked against the registry
    itself (`choices_of`), so that it accepts kinds that are registered later.
    """
    return Annotated[Literal[registry.names()], registry]  # type: ignore[valid-type]


def choices_of(hint: Any) -> tuple[Any, ...]:
    """The values that a field of this type may hold: names of a registry, or those of a Literal; () for other types."""
    registry = next((note for note in typing.get_args(hint)[1:] if isinstance(note, Registry)), None)
    if registry is not None:
        return registry.names()
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
