"""Cache of lowered programs on disk, so that a second start does not trace them again.

JAX's compilation cache needs the lowered program as its key, which Python produces anew at every start; this took half
of the time that a finished run needed for an answer, apart from imports. Therefore the lowered program (`jax.export`)
is cached too. Its key covers this package's sources, the versions of JAX, the caller's description of the function, and
the shapes of its arguments.

A cached program is executed. It is therefore stored in the folder of compiled programs, and only where that belongs to
the user (see `metarec_jax.core.compile_cache`); a run folder, which may come from anywhere, holds no programs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from metarec_jax.core.atomic_files import replacing
from metarec_jax.core.errors import MetarecError

_SETTINGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
"""Options of JAX that change how a function is traced; they may change while a process runs."""
_DIGEST = 32
"""Number of bytes of the checksum at the start of a file."""


class Traced:
    """`jax.jit` of a function, with its lowered programs cached in the folder of JAX's compilation cache (if any).

    Args:
        function: pure function; positional arguments are trees of arrays, keyword arguments are static.
        told: description of everything that the function depends on besides this package's sources (its closure).
        static_argnames: as for `jax.jit`.

    Attributes:
        jitted: the function from `jax.jit`.
    """

    def __init__(self, function: Callable[..., Any], told: str, static_argnames: Sequence[str] = ()):
        self.jitted = jax.jit(function, static_argnames=tuple(static_argnames))
        inner = function
        while isinstance(inner, functools.partial):
            inner = inner.func
        self._told = f"{inner.__module__}.{inner.__qualname__}\n{told}"
        self._programs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function."""
        folder = _folder()
        if folder is None:
            return self.jitted(*arguments, **options)
        leaves, tree = jax.tree.flatten(arguments)
        # Python numbers would be weakly typed, which exported programs do not support.
        leaves = [leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for leaf in leaves]
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        asked = (tree, shapes, tuple(sorted(options.items())), tuple(getattr(jax.config, name) for name in _SETTINGS))
        if asked not in self._programs:
            self._programs[asked] = self._found(folder, asked, tree, leaves, options)
        return self._programs[asked](*leaves)

    def _found(
        self, folder: Path, asked: Any, tree: Any, leaves: Sequence[Any], options: dict[str, Any]
    ) -> Callable[..., Any]:
        """Read the program for some leaves from the folder, or trace it and store it there."""

        def flat(*leaves: Any) -> Any:
            return self.jitted(*tree.unflatten(leaves), **options)

        path = folder / hashlib.sha256("\n".join((_world(), self._told, repr(asked))).encode()).hexdigest()
        try:
            exported = _read(path)
            if exported is None:
                shapes = [
                    jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in leaves
                ]
                exported = jax.export.export(jax.jit(flat))(*shapes)
                _write(path, exported)
        except Exception:  # a cache must not fail: errors of tracing appear again in the call
            return jax.jit(flat)
        return jax.jit(exported.call)


def _folder() -> Path | None:
    values = jax.config.values
    chosen = values["jax_compilation_cache_dir"]
    return Path(chosen) / "traced" if chosen and values["jax_enable_compilation_cache"] else None


def _read(path: Path) -> jax.export.Exported | None:
    """Read the program in a file; None where there is no file, or it is damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, program = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(program).digest() != digest:
        return None
    return jax.export.deserialize(bytearray(program))


def _write(path: Path, exported: jax.export.Exported) -> None:
    program = exported.serialize()
    with contextlib.suppress(OSError, MetarecError):  # a full disk, or one that cannot be written to
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(hashlib.sha256(program).digest() + program)


@functools.cache
def _world() -> str:
    """Digest of everything that all programs depend on: this package's source files, and JAX."""
    here = Path(__file__).parents[1]
    sources = sorted(here.rglob("*.py"))
    states = ((file.relative_to(here), file.stat()) for file in sources)
    written = [f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states]
    return "\n".join([*written, jax.__version__, jax.lib.__version__, jax.default_backend()])
