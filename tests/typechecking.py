"""The type checker of the tests: beartype, to which a number of NumPy is a number.

Functions within functions are left alone: they are made anew each time the outer one runs, and so would be what checks
them, which takes longer than most of them run.
"""

from typing import Any

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

_NUMBERS = FrozenDict(
    {
        int: int | np.integer,
        float: float | int | np.floating | np.integer,
        bool: bool | np.bool,
    }
)
_check = beartype(conf=BeartypeConf(hint_overrides=_NUMBERS))


def check(what: Any) -> Any:
    """A function or class that checks what it is given and what it returns."""
    return what if "<locals>" in what.__qualname__ else _check(what)
