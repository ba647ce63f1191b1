"""Stand-ins for two packages that metarec_jax imports and computes nothing with, where they are not installed.

A machine that is lent for minutes has JAX, its libraries and PyTorch, and nothing can be installed there.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Annotation:
    """A name of jaxtyping, such as ``Float`` in ``Float[Array, "users"]``."""

    def __class_getitem__(cls, shape: Any) -> Any:
        return Any


def _jaxtyping() -> ModuleType:
    """Names of array types, which only annotations use."""

    def named(name: str) -> Any:
        if name.startswith("__"):  # such as __file__, which libraries ask all modules for
            raise AttributeError(name)
        return _Annotation

    module = ModuleType("jaxtyping")
    module.__getattr__ = named  # type: ignore[method-assign]
    return module


def _lazy_loader() -> ModuleType:
    """The functions that give a package names of its modules; the benchmark imports the modules themselves."""

    def missing(name: str) -> Any:
        raise AttributeError(f"lazy_loader is not installed, so that {name!r} is not a name of the package")

    module = ModuleType("lazy_loader")
    module.attach_stub = lambda package, file: (missing, list, [])  # type: ignore[attr-defined]
    return module


def add_missing() -> None:
    """Make the two packages importable where they are not installed."""
    for name, make in (("jaxtyping", _jaxtyping), ("lazy_loader", _lazy_loader)):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = make()
