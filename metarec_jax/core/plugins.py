"""User modules that register new kinds: loaded when the user names them, never by a run folder."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.kinds import ALL


def load_plugins(names: Sequence[str]) -> None:
    """Import modules by name, from the current folder or from Python's path.

    Args:
        names: names of the modules; the kinds that they register can then be named in a config.

    Raises:
        MetarecError: a module is not found, or its import fails.
    """
    for name in names:
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except MetarecError:
            raise
        except ModuleNotFoundError as error:
            raise MetarecError(
                f"--plugin {name}: there is no module {error.name!r}: give the name of a Python module in this folder, "
                "or of an installed one"
            ) from error
        except Exception as error:
            raise MetarecError(f"--plugin {name}: the module fails when it is imported: {error!r}") from error


def plugins_of(config: Any) -> list[str]:
    """The modules outside the package that registered the kinds a config names, in alphabetical order."""
    found = set()
    for registry in ALL:
        section, _, field = registry.option.partition(".")
        value = getattr(getattr(config, section, None), field, "")
        found.add(registry.plugin_of(value))
    return sorted(found - {""})


def require_plugins(names: Any, where: str) -> None:
    """Refuse a run that needs plugins which have not been loaded.

    Args:
        names: modules that the run names; they are compared with those that are loaded, and not imported.
        where: the run folder, for the message.

    Raises:
        MetarecError: a module is not loaded, or `names` is not a list of names.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise MetarecError(f"{where}: plugins is {shown(names)}; it must be a list of names of modules")
    missing = [name for name in names if name not in sys.modules]
    if missing:
        options = " ".join(f"--plugin {name[:80]}" for name in missing[:3])
        raise MetarecError(
            f"{where} was made with kinds that the module {shown(missing[0])} registers: add {options} if you trust it "
            f"(in Python: import {missing[0][:80]} first)"
        )
