"""A mistake of XLA's CPU compiler that would make wrong numbers, and the flag that keeps clear of it."""

from __future__ import annotations

import os

FLAG = "xla_cpu_experimental_ynn_fusion_type"
_WRONG = ((0, 10), (0, 13))
"""From which jaxlib on, and before which: later ones may not know the flag, which would end the process."""


def avoid_wrong_sums() -> None:
    """Has XLA leave reductions out of what it hands to YNNPACK, unless $XLA_FLAGS says what to hand over.

    With jaxlib 0.10.2 and 0.12.0, a product whose right side is one number repeated, followed by another product and a
    reduction (a log-softmax, say), is compiled for CPUs into a program that reads memory that nobody wrote: so was the
    validation loss of every model without inner steps. tests/core/test_xla_flags.py has it in ten lines. The flag
    costs a tenth of the speed of training on a CPU, and adds a fifth to that of ranking. It has to be set before JAX
    compiles for the first time, so importing the package sets it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG in flags or not _WRONG[0] <= _jaxlib() < _WRONG[1]:
        return
    os.environ["XLA_FLAGS"] = f"{flags} --{FLAG}=-reduce".strip()


def _jaxlib() -> tuple[int, int]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        major, minor = version("jaxlib").split(".")[:2]
        return int(major), int(minor)
    except (PackageNotFoundError, ValueError):
        return (0, 0)


def leave_threads_to_xla() -> None:
    """Has OpenBLAS work in the thread that calls it, unless $OPENBLAS_NUM_THREADS says otherwise.

    XLA shares out the matrices of a batch among its own threads, and each has LAPACK (of SciPy's OpenBLAS) invert,
    factorise or solve its own. Left alone, OpenBLAS starts as many threads again for each of these small matrices, and
    all wait for each other in busy loops: `python -m benchmarks beliefs` has what that costs on a machine with nothing
    else to do; where other work runs, it is many times that. OpenBLAS reads the variable when it is loaded,
    which JAX does when it first needs it, so that importing the package is early enough, also after `import jax`.

    NumPy brings an OpenBLAS of its own, which heeds the variable where NumPy is imported after the package.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
