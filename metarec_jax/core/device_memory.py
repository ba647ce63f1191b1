"""Memory of devices and of the machine, and the number of users that a device can compute in parallel."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from metarec_jax.core.errors import MetarecError

SHARE = 0.8
"""Share of the free memory that a program's temporaries may take; the rest is for its arguments and the runtime."""


def free_memory(device: jax.Device) -> int:
    """Free memory of `device` in bytes; for a CPU, of the machine."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def machine_memory() -> int:
    """Memory of the machine in bytes, or what a control group or a limit of this process leaves of it."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    with contextlib.suppress(ImportError):
        import resource

        found += [limit for limit in resource.getrlimit(resource.RLIMIT_DATA) if limit != resource.RLIM_INFINITY]
    return min(found)


def return_freed_memory() -> None:
    """Return memory that was freed to the system, which the C library keeps in pieces; only glibc has such a call.

    A process that has learned item factors or compiled large programs keeps several hundred megabytes otherwise.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def temporaries(compiled: Any) -> int:
    """Bytes of device memory that a compiled program needs in addition to its arguments and results."""
    return compiled.memory_analysis().temp_size_in_bytes


def users_that_fit(compile_with: Callable[[int], Any], most: int, budget: int) -> int:
    """Find the largest micro-batch whose temporaries stay within a memory budget, among `most` halved repeatedly.

    Args:
        compile_with: users of a micro-batch on one device -> compiled program.
        most: users on one device in an outer step.
        budget: memory in bytes.

    Returns:
        Users of a micro-batch.

    Raises:
        MetarecError: a single user does not fit.
    """
    users = most
    while (needed := temporaries(compile_with(users))) > budget:
        if users == 1:
            raise MetarecError(
                f"train.users_per_device is 0 (as many as fit), but one user needs {needed / 1e6:,.0f} MB and "
                f"{budget / 1e6:,.0f} MB are free: lower the last of --episodes.buckets, or --learner.hidden"
            )
        users = -(-users // 2)
    return users
