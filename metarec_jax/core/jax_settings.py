"""Checks of JAX's settings, where JAX itself ends in a traceback or ends the process."""

from __future__ import annotations

import functools
import mmap
import os
import subprocess
import sys
from pathlib import Path

from metarec_jax.core.errors import MetarecError

_STARTED = "import jax; jax.jit(lambda x: x)(0)"


def check_jax() -> None:
    """Start JAX, and refuse settings with which it cannot start or with which this package does not compute.

    Raises:
        MetarecError: as for `check_devices`; or jax_enable_x64 or jax_numpy_dtype_promotion has another value than
            JAX's default, by $JAX_ENABLE_X64, say, or by `jax.config.update`.
    """
    check_devices()
    import jax

    if jax.config.jax_enable_x64:  # pyrefly: ignore[missing-attribute]
        raise MetarecError(
            "JAX_ENABLE_X64 (jax_enable_x64) is set, but parameters and runs are float32: unset it (JAX_ENABLE_X64=0, "
            "or jax.config.update('jax_enable_x64', False))"
        )
    promotion = jax.config.jax_numpy_dtype_promotion  # pyrefly: ignore[missing-attribute]
    if promotion != "standard":
        raise MetarecError(
            f"JAX_NUMPY_DTYPE_PROMOTION (jax_numpy_dtype_promotion) is {str(promotion)!r}, but the programs of this "
            "package need 'standard': unset it, or call jax.config.update('jax_numpy_dtype_promotion', 'standard')"
        )


def import_jax() -> None:
    """Import JAX, which reads its environment variables.

    Raises:
        MetarecError: one of them has a value that JAX does not accept.
    """
    try:
        import jax  # noqa: F401
    except ValueError as error:
        raise MetarecError(
            f"JAX cannot start with its environment variables: {str(error)[:300]}; unset the one that is meant (its "
            "name begins with JAX_), or give it a value that JAX accepts"
        ) from error


def check_devices() -> None:
    """Start JAX on the devices of its settings.

    Raises:
        MetarecError: as for `import_jax`; $XLA_FLAGS has an unknown flag, or $JAX_PLATFORMS names devices that are not
            there.
    """
    _check_xla_flags(os.environ.get("XLA_FLAGS", ""))
    import_jax()
    import jax

    asked = jax.config.values["jax_platforms"]
    try:
        jax.devices()
    except Exception as error:  # JAX raises RuntimeError, and AssertionError for a plugin that is not installed
        reason = str(error).split(" (set JAX_PLATFORMS")[0].split("\n")[0][:300] or "its plugin is not installed"
        raise MetarecError(
            f"JAX cannot start on JAX_PLATFORMS={asked or ''!r}: {reason}; install the extra metarec_jax[cuda] for "
            "NVIDIA GPUs or metarec_jax[tpu] for TPUs, or use JAX_PLATFORMS=cpu"
        ) from error


@functools.cache
def _check_xla_flags(flags: str) -> None:
    """Refuse a flag that XLA does not know, for which it would end the process without an exception.

    Names that are not in the library are tried in a process of their own, since the search can miss one.
    """
    given = flags.split()
    names = [flag.removeprefix("--").partition("=")[0] for flag in given]
    if given and not given[0].startswith("--"):
        if os.path.isfile(given[0]):  # a file of flags
            return
        raise MetarecError(f"XLA_FLAGS is {flags[:200]!r}; it must be flags such as --xla_dump_to=FOLDER, or a file")
    missing = [name for name in names if not _in_library(name)]
    if not missing:
        return
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _STARTED]
    tried = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if tried.returncode:
        raise MetarecError(
            f"XLA_FLAGS has the flag --{missing[0][:80]}, which this version of XLA does not know: remove it, or "
            "correct its name"
        )


def _in_library(name: str) -> bool:
    """Whether the name of a flag is in the library of jaxlib."""
    import jaxlib

    folder = Path(jaxlib.__file__).parent
    for path in (*folder.glob("libjax_common*"), *folder.glob("xla_extension*"), *folder.glob("_jax*")):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(b"\0" + name.encode() + b"\0") >= 0:
                return True
    return False
