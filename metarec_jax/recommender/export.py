"""Export of a run to a folder that adapts and recommends on a user's device, so that no history leaves the device.

Adapting and scoring are one program for each support length, as serialized StableHLO (`jax.export`); its tensors are
safetensors, the list of items is JSON. ``examples/on_device.py`` reads such a folder with only JAX and NumPy.

    manifest.json        layout, rating scale, support lengths, the arguments of the programs in order, checksums
    items.json           ids and titles of the catalogue, in row order
    tensors.safetensors  parameters, embeddings and statistics
    scores-N.jax         (tensors in order, item int32 [N], rating float32 [N], mask float32 [N]) -> scores [items];
                         ratings and scores are in the unit of the manifest's scale
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metarec_jax.core.atomic_files import new_folder, write_text
from metarec_jax.core.checked_files import write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import STANDARD_LOW, Scale
from metarec_jax.core.types import Prepared
from metarec_jax.meta.model import Model
from metarec_jax.recommender.item_table import tables_of
from metarec_jax.recommender.programs import adapt_and_score
from metarec_jax.recommender.recommender import Recommender

LAYOUT = 1
"""Version of the folder's format."""
PLATFORMS = ("cpu", "cuda", "tpu")


def export_folder(recommender: Recommender, folder: Path) -> Path:
    """Write the model to a folder.

    Args:
        recommender: the model.
        folder: new or empty.

    Returns:
        The folder.

    Raises:
        MetarecError: the folder is not empty, or the model encodes a text that is made from a user's history.
    """
    config = recommender.config
    if config.learner.user_side == "description":
        raise MetarecError(
            "learner.user_side is 'description': a history becomes a text that the encoder reads, which a device does "
            "not have; export a run with --learner.user-side none or profile (whose users then are the average user)"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MetarecError(f"{folder} holds something already: name a new folder with --out")
    folder = folder.resolve()
    with new_folder(folder) as part:
        _write(recommender, part)
    return folder


def _write(recommender: Recommender, folder: Path) -> None:
    config = recommender.config
    tensors, structure = _tensors(recommender)
    names = [name for name, _ in tensors]
    arrays = [array for _, array in tensors]
    files = {}
    write_arrays(folder / "tensors.safetensors", dict(tensors))
    items, scale = recommender.catalogue.items, recommender.catalogue.scale
    write_text(
        folder / "items.json",
        json.dumps({"ids": items.ids, "titles": items.titles}, ensure_ascii=False, indent=0) + "\n",
    )
    like = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
    for length in config.episodes.buckets:
        row = [jax.ShapeDtypeStruct((length,), dtype) for dtype in (jnp.int32, jnp.float32, jnp.float32)]
        program = jax.jit(lambda *arguments: _scores(recommender.executor.model, scale, structure, arguments))
        exported = jax.export.export(program, platforms=PLATFORMS)(*like, *row)
        path = folder / f"scores-{length}.jax"
        path.write_bytes(exported.serialize())
    for path in sorted(folder.iterdir()):
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {
        "layout": LAYOUT,
        "scale": scale._asdict(),
        "support_lengths": list(config.episodes.buckets),
        "most_ratings": config.episodes.max_support,
        "arguments": [*names, "item", "rating", "mask"],
        "jax": jax.__version__,
        "platforms": list(PLATFORMS),
        "sha256": files,
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=1) + "\n")


def _tensors(recommender: Recommender) -> tuple[list[tuple[str, np.ndarray]], Any]:
    """Named arrays that are arguments of the programs, and the tree structure of the parameters among them."""
    executor, table = recommender.executor, recommender.items.table
    leaves, structure = jax.tree.flatten_with_path(executor.trainable)
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)) for path, leaf in leaves]
    if not table.on_device:
        raise MetarecError(
            f"the catalogue has {table.count:,} items of width {table.embeddings.shape[1]}, too many for one program "
            "on a user's device: export a run with fewer items"
        )
    items = table.tensors(single_user=True)
    average = jnp.asarray(executor.average_user[None])
    user = tables_of(executor.model, executor.trainable.theta, items, average).users
    extra = {"items": items.items[: table.count], "user": user, "statistic": items.statistic[: table.count]}
    return named + [(f"tables/{name}", np.asarray(array)) for name, array in extra.items()], structure


def _scores(model: Model, scale: Scale, structure: Any, arguments: tuple[Array, ...]) -> Float[Array, " items"]:
    """`adapt_and_score` of flat arguments, in the order of the manifest; ratings and scores are in the data's unit."""
    *leaves, items, user, statistic, item, rating, mask = arguments
    trainable, tables = structure.unflatten(leaves), Prepared(items, user)
    found = adapt_and_score(model, trainable, tables, statistic, item, scale.standard(rating), mask)
    return found if scale.is_standard else (found - STANDARD_LOW) * scale.unit + scale.low
