"""Compiled programs kept on disk, so that a second start need not compile.

What is kept is machine code, which JAX loads and runs. So it lies in a folder of the user's own that nobody else can
write to, and in one of its own for each kind of processor: a home folder may be mounted on several machines, and code
for one may use instructions that another does not have.
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
    """Has JAX keep what it compiles below the folder `cache`, where that is safe.

    A folder chosen with $JAX_COMPILATION_CACHE_DIR stays chosen, and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
    """
    # XLA's log says things about cached programs that help nobody here; it is read before JAX is imported.
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
    """Nothing is read from the cache on disk or written to it: so that compiling can be timed."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.values["jax_enable_compilation_cache"]
    # JAX asks once in a process whether there is a cache, and remembers the answer.
    compilation_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def private_folder(path: Path) -> Path | None:
    """`path`, made where it is not there; None where it cannot be made, is another's, or others may write to it."""
    with contextlib.suppress(OSError):  # a cache is no reason to fail
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if not hasattr(os, "getuid"):  # Windows, where a profile's folders are the user's own
            return path
        found = path.stat()
        if found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return path
    return None


def processor() -> str:
    """A name for what this machine's processors can do: machines of one name can run each other's code."""
    features = platform.processor()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        told = (line for line in file if line.lower().startswith(("flags", "features", "isa")))
        features = next(told, features)
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()
    return f"{platform.machine() or 'machine'}-{digest[:12]}"
