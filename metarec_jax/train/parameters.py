"""The best parameters of a training so far, as a safetensors file.

The file is written at each new best evaluation during training. Checkpoints hold only the two latest states, and orbax,
which reads them, is slow to import.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np

from metarec_jax.core.checked_files import read_arrays, write_arrays
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.core.types import Params
from metarec_jax.meta.model import Trainable
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.model import abstract_trainable
from metarec_jax.train.run_folder import Run

Tree = TypeVar("Tree")


def save(params: Params, path: Path) -> None:
    """Write parameters to a file, atomically.

    Args:
        params: host arrays: a `Trainable`, or the weights of a pretraining.
        path: path of the file.

    Raises:
        MetarecError: the file cannot be written.
    """
    write_arrays(path, {name: np.asarray(leaf) for name, leaf in zip(path_names(params), jax.tree.leaves(params))})


def load(like: Tree, path: Path) -> Tree:
    """Read parameters as host arrays.

    Args:
        like: arrays or ShapeDtypeStructs of the expected shapes and dtypes.
        path: path of the file.

    Returns:
        A tree with the structure of `like`.

    Raises:
        MetarecError: the file is damaged, or its arrays do not fit `like`.
    """
    names, leaves = path_names(like), jax.tree.leaves(like)
    arrays, _ = read_arrays(path)
    wanted = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in zip(names, leaves)}
    found = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise MetarecError(
                f"{path} does not fit the run's config.json: {name} is {found.get(name, 'absent')} in the file and "
                f"{wanted.get(name, 'absent')} by the config; use the config.json that the run was trained with"
            )
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in names])


def load_trainable(run: Run, catalogue: Catalogue, encoder: Params = None) -> Trainable:
    """Read the parameters with the least validation loss of a run so far.

    Args:
        run: the run folder of a finished or running training.
        catalogue: catalogue of that run.
        encoder: parameters of the encoder before training, for a run that trains it.

    Returns:
        Host arrays.

    Raises:
        MetarecError: no epoch has ended yet, or the file is damaged or does not fit the run's config.
    """
    config = run.config
    if not os.path.lexists(run.parameters):
        why = "no epoch has ended"
        if run.checkpoints.exists():
            why = "no epoch has ended, or an earlier version kept its parameters in a checkpoint"
        raise MetarecError(
            f"{run.folder} holds no file of trained parameters yet: {why}; train on, or write the file, with "
            f"`metarec train --resume {path_argument(run.folder)}`"
        )
    hidden = 0 if config.learner.user_side == "none" else catalogue.embeddings.shape[1]
    return load(abstract_trainable(config, catalogue, hidden, encoder), run.parameters)
