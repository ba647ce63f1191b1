"""The type checker of the tests: beartype, to which a number of NumPy is a number, with jaxtyping's shapes.

jaxtyping's own wrapper binds the arguments of every call and checks them twice, for axes that arguments and results
share. Tracing calls many small functions, so only those whose annotations have shapes get it. Functions within
functions are left alone: they are made anew each time the outer one runs, and so would be what checks them, which takes
longer than most of them run.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jaxtyping
import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

_NUMBERS = FrozenDict(
    {
        int: int | np.integer,
        float: float | int | np.floating | np.integer,
        bool: bool | np.bool,
    }
)
_beartype = beartype(conf=BeartypeConf(hint_overrides=_NUMBERS))
_jaxtyped = jaxtyping.jaxtyped


def check(what: Any) -> Any:
    """A function that checks what it is given and what it returns."""
    return what if "<locals>" in what.__qualname__ else _beartype(what)


def install(package: str) -> None:
    """Have every annotated function of a package checked that is imported from now on."""
    jaxtyping.jaxtyped = _decorator
    jaxtyping.install_import_hook(package, "typechecking.check")


def _decorator(*, typechecker: Any) -> Callable[[Any], Any]:
    with_shapes = _jaxtyped(typechecker=typechecker)

    def decorate(what: Any) -> Any:
        if not isinstance(what, FunctionType) or _has_shapes(what):
            return with_shapes(what)
        return what if "<locals>" in what.__qualname__ else _without_shapes(what)

    return decorate


def _has_shapes(function: FunctionType) -> bool:
    """Whether a name in its annotations is one of jaxtyping's types, such as Float."""
    words = re.findall(r"\w+", " ".join(map(str, function.__annotations__.values())))
    return any(getattr(function.__globals__.get(word), "__module__", "").startswith("jaxtyping") for word in words)


def _without_shapes(function: FunctionType) -> Any:
    checked = check(_with_known_types(function))

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        used = function if jaxtyping.config.jaxtyping_disable else checked
        return used(*arguments, **options)

    return called


def _with_known_types(function: FunctionType) -> FunctionType:
    """A copy without annotations that its module does not know when it is defined, which jaxtyping leaves out too."""
    arguments = function.__name__, function.__defaults__, function.__closure__
    copy = FunctionType(function.__code__, function.__globals__, *arguments)
    copy.__qualname__, copy.__module__ = function.__qualname__, function.__module__
    copy.__kwdefaults__ = function.__kwdefaults__
    for name, hint in function.__annotations__.items():
        with contextlib.suppress(Exception):
            copy.__annotations__[name] = eval(hint, function.__globals__) if isinstance(hint, str) else hint
    return copy
