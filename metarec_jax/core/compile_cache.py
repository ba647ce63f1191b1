"""Cache of compiled programs on disk, so that a second start does not compile them again.

Cached programs are machine code that JAX loads and runs. They are therefore stored in a folder of the user that nobody
else can write to. Each kind of processor has its own subfolder: a home folder may be mounted on several machines, and
code for one may use instructions that another does not have.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from pathlib import Path


def keep_compilations(cache: Path) -> None:
    """Enable JAX's compilation cache below the folder `cache`, if that folder is safe.

    $JAX_COMPILATION_CACHE_DIR takes precedence, and JAX_ENABLE_COMPILATION_CACHE=false disables the cache.
    """
    # Suppresses XLA's log messages about cached programs; the variable is read when JAX is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = private_folder(cache / "xla" / processor())
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextlib.contextmanager
def compiled_anew() -> Iterator[None]:
    """Disable the cache on disk in a block, so that compilation can be timed."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.values["jax_enable_compilation_cache"]
    # JAX checks once per process whether there is a cache, and stores the result.
    compilation_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def private_folder(path: Path) -> Path | None:
    """Make a folder; None where it cannot be made, belongs to another user, or is writable by others."""
    with contextlib.suppress(OSError):  # a cache must not fail
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if not hasattr(os, "getuid"):  # Windows, where a profile's folders are the user's own
            return path
        found = path.stat()
        if found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return path
    return None


def processor() -> str:
    """Identifier of the processors' instruction set; machines with equal identifiers can run each other's code."""
    features = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        told = (line for line in file if line.lower().startswith(("flags", "features", "isa")))
        features = next(told, features)
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()
    return f"{platform.machine() or 'machine'}-{digest[:12]}"
