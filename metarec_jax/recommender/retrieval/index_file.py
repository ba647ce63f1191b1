"""Files of indexes: safetensors with a digest of their content, and the run that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import jax.numpy as jnp
import numpy as np

from metarec_jax.core.checked_files import read_arrays, reading, write_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.retrieval.build import IndexKind, build_index
from metarec_jax.recommender.retrieval.graph import Graph
from metarec_jax.recommender.retrieval.quantised import Quantised
from metarec_jax.recommender.retrieval.scan import Scan
from metarec_jax.recommender.retrieval.vectors import Index, Vectors

__all__ = ["Path", "load", "save"]
_FORM = "2"
"""Version of the vectors that indexes are of (`metarec_jax.recommender.retrieval.item_vectors`)."""
_REMEDY = "delete it, and save the index of this run again"


def save(index: Index, path: Path, digest: str) -> None:
    """Write an index to a file.

    Args:
        index: the index.
        path: the file.
        digest: identifier of the run.

    Raises:
        MetarecError: the file cannot be written.
    """
    graph = index if isinstance(index, Graph) else None
    scan = index.scan if isinstance(index, Graph) else index
    assert isinstance(scan, Scan)
    table = scan.table
    arrays = {name: np.asarray(part) for name, part in table._asdict().items()}
    if graph is not None:
        arrays["graph"] = graph.saved()
    write_arrays(path, arrays, {"run": digest, "vectors": _FORM, "kind": "scan" if graph is None else "graph"})


def load(vectors: Vectors, path: Path, digest: str) -> Index:
    """Read an index of the same run.

    Args:
        vectors: vectors of the items.
        path: the file.
        digest: identifier of the run.

    Returns:
        The index.

    Raises:
        MetarecError: the file is missing or damaged, or the index belongs to another run.
    """
    arrays, texts = read_arrays(path, _REMEDY)
    if texts.get("run") != digest:
        raise MetarecError(f"{path} is the index of another run, or of other items: {_REMEDY}")
    if texts.get("vectors") != _FORM:
        raise MetarecError(f"{path} is the index of an earlier version, whose vectors were others: {_REMEDY}")
    with reading(path, _REMEDY):
        kind, count, width = texts["kind"], len(vectors), vectors.width
        if kind not in get_args(IndexKind):
            raise ValueError(f"an index of the kind {kind!r}")
        values, scale = arrays["values"], arrays["scale"]
        tile = max(scale.shape[1], 1) if scale.ndim == 2 else 1
        shape = (-(-count // tile), width, tile)
        if values.shape != shape or values.dtype != np.int8 or scale.shape != (shape[0], tile):
            raise ValueError(f"its values are {values.dtype} of shape {values.shape}, not int8 of shape {shape}")
        sizes = arrays["middle"], arrays["spread"]
        table = Quantised(jnp.asarray(values), jnp.asarray(scale), *sizes, float(arrays["residual"]))
        return build_index(vectors, "graph" if kind == "graph" else "scan", table, arrays.get("graph"))
