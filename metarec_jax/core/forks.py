"""Refusal to compute in a process that was forked from one that had used JAX.

A fork copies no threads, so a forked process waits forever for those of JAX.
"""

from __future__ import annotations

import os

from metarec_jax.core.errors import MetarecError

_used_in: int | None = None
"""Id of the process that used JAX first."""


def refuse_fork() -> None:
    """Note that this process uses JAX, or refuse to where the process that it was forked from did.

    Raises:
        MetarecError: JAX was used before the fork.
    """
    global _used_in
    if _used_in is None:
        _used_in = os.getpid()
    elif _used_in != os.getpid():
        raise MetarecError(
            f"this process ({os.getpid()}) was forked from one ({_used_in}) that had used JAX, whose threads a fork "
            'does not copy, so it would wait forever: start processes with multiprocessing.get_context("spawn") (for '
            'PyTorch loaders, multiprocessing_context="spawn"), or load the model in the new process only'
        )
