"""Environment variables that work around a bug of XLA's CPU compiler and keep OpenBLAS from oversubscribing threads."""

from __future__ import annotations

import os

FLAG = "xla_cpu_experimental_ynn_fusion_type"
_WRONG = ((0, 10), (0, 13))
"""First jaxlib with the flag, and first without it; an unknown flag ends the process."""


def avoid_wrong_sums() -> None:
    """Exclude reductions from XLA's YNNPACK fusions, unless $XLA_FLAGS sets these fusions.

    With jaxlib 0.10.2 and 0.12.0, a product whose right side is one repeated number, followed by another product and a
    reduction (such as a log-softmax), is compiled for CPUs into a program that reads uninitialised memory; this affects
    the validation loss of models without inner steps. tests/core/test_xla_flags.py reproduces it in ten lines. The flag
    makes training on a CPU 10 % slower and ranking 20 % faster. It must be set before JAX compiles for the first time,
    so importing the package sets it.
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
    """Limit OpenBLAS to one thread per call, so that it does not oversubscribe XLA's thread pool.

    XLA distributes the matrices of a batch over its threads, each of which calls LAPACK (of SciPy's OpenBLAS). By
    default OpenBLAS starts further threads for each of these small matrices, which wait for each other in busy loops.
    `python -m benchmarks beliefs` measures the cost on an idle machine; on a busy machine it is many times higher.

    OpenBLAS reads $OPENBLAS_NUM_THREADS when JAX loads it at its first use, so importing the package is early enough,
    also after `import jax`. NumPy's own OpenBLAS reads the variable only if NumPy is imported after the package. A
    value that is already set is kept.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
