"""How programs are compiled quickly, and are slow to run. All tests compile so: see conftest.py, which has to be ahead
of the package, so that this file imports nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):  # later versions have no other emitters, and refuse the option
    QUICK["xla_cpu_use_fusion_emitters"] = False


def quick_jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` that takes a sixth of the time to compile and gives slow code: for programs that run a few times."""
    return jax.jit(function, compiler_options=QUICK, **options)
