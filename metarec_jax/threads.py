"""Whose threads do linear algebra on a CPU: XLA's, and not those of OpenBLAS as well."""

from __future__ import annotations

import os


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
