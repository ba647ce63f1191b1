"""The type checker of the tests: beartype, to which a number of NumPy is a number."""

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

_NUMBERS = FrozenDict(
    {
        int: int | np.integer,
        float: float | int | np.floating | np.integer,
        bool: bool | np.bool,
    }
)
check = beartype(conf=BeartypeConf(hint_overrides=_NUMBERS))
