"""The best parameters of a training so far, as a safetensors file.

It is written at each new best evaluation, also while training goes on. The checkpoints hold the two latest states only,
and orbax, which reads them, takes long to import.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from metarec_jax.core.atomic_files import replacing
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Params

Tree = TypeVar("Tree")


def save(params: Params, path: Path) -> None:
    """Write parameters to a file, atomically.

    Args:
        params: host arrays; a `Trainable`, or what a pretraining trains.
        path: of the file.

    Raises:
        MetarecError: the file cannot be written.
    """
    from safetensors.numpy import save_file

    arrays = {name: np.asarray(leaf, order="C") for name, leaf in zip(path_names(params), jax.tree.leaves(params))}
    with replacing(path) as part:
        save_file(arrays, part)


def load(like: Tree, path: Path) -> Tree:
    """Read parameters as host arrays.

    Args:
        like: arrays or ShapeDtypeStructs of the shapes and dtypes that are wanted.
        path: of the file.

    Raises:
        MetarecError: the file is damaged, or its arrays are not those that are wanted.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    names, leaves = path_names(like), jax.tree.leaves(like)
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as error:
        raise MetarecError(f"{path} is damaged ({error}): restore it from a copy, or train the run again") from error
    wanted = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in zip(names, leaves)}
    found = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise MetarecError(
                f"{path} does not fit the run's config.json: {name} is {found.get(name, 'absent')} in the file and "
                f"{wanted.get(name, 'absent')} by the config; use the config.json that the run was trained with"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in names])
