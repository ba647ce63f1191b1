"""The catalogue of a run: items with their embeddings, statistics of training ratings, and factors."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from metarec_jax.core.checked_files import RESTORE, numbers, read_arrays, read_table, reading, write_arrays, write_table
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.file_rows import FileRows
from metarec_jax.core.json_files import parse_json
from metarec_jax.core.scale import Scale, scale_from_json
from metarec_jax.core.stored_strings import as_arrow
from metarec_jax.core.types import Items
from metarec_jax.data.splits import Statistics
from metarec_jax.factors import io
from metarec_jax.factors.correction import place_of
from metarec_jax.factors.item_factors import FACTORS, Beliefs
from metarec_jax.train import picture_file
from metarec_jax.train.run_folder import Run

MAPPED = 1 << 29
"""Bytes of embeddings above which they stay in their file; this is the size that a device holds at most."""


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Everything except parameters that scoring needs.

    Attributes:
        items: who they are.
        statistics: the training users' ratings of each, on the standard scale (`metarec_jax.core.scale`).
        embeddings: float32 [items, hidden], an array, or rows that are read when they are asked for.
        scale: of the ratings as the data has them.
        beliefs: what was learned of items beside counts; None where nothing was.
    """

    items: Items
    statistics: Statistics
    embeddings: Any
    scale: Scale
    beliefs: Beliefs | None = None


def corrected(catalogue: Catalogue, correction: np.ndarray | None) -> Catalogue:
    """Add a trained correction to the item factors of a catalogue.

    Args:
        catalogue: the catalogue.
        correction: float [rows, rank] (`metarec_jax.factors.correction`); None leaves the catalogue as it is.

    Returns:
        The catalogue. Factors that are predicted for new items have no correction.
    """
    if correction is None or catalogue.beliefs is None:
        return catalogue
    table = catalogue.beliefs.table.copy()
    table[:, FACTORS:] += np.asarray(correction)[place_of(np.arange(len(table)), len(correction))]
    return dataclasses.replace(
        catalogue,
        statistics=catalogue.statistics._replace(beliefs=table),
        beliefs=dataclasses.replace(catalogue.beliefs, table=table),
    )


def save(catalogue: Catalogue, run: Run) -> None:
    """Write a catalogue to a run folder, as Parquet and safetensors.

    Args:
        catalogue: the catalogue.
        run: the run folder.
    """
    import pyarrow as pa

    items = catalogue.items
    table = pa.table(
        {
            "id": as_arrow(items.ids),
            "title": as_arrow(items.titles),
            "text": as_arrow(items.texts),
            **{f"detail:{name}": as_arrow(values) for name, values in items.details.items()},
            "rating_sum": catalogue.statistics.total,
            "rating_count": catalogue.statistics.count,
        }
    )
    arrays = {"items": catalogue.embeddings} | ({} if items.vectors is None else {"vectors": items.vectors})
    write_arrays(run.embeddings, {name: np.asarray(array, np.float32) for name, array in arrays.items()})
    if catalogue.beliefs is not None:
        io.save(catalogue.beliefs, run.beliefs)
    if items.pictures is not None:
        picture_file.save(items.pictures, run.pictures)
    write_table(
        run.catalogue,
        table,
        {
            "scale": json.dumps(catalogue.scale._asdict()),
            "standardised": json.dumps(True),
            "beliefs": json.dumps(catalogue.beliefs is not None),
        },
    )


def load(run: Run) -> Catalogue:
    """Read the catalogue of a run folder.

    Raises:
        MetarecError: a file is missing or damaged, or the files do not belong together.
    """
    table, texts = read_table(run.catalogue)
    with reading(run.catalogue):
        columns = {name: table.column(name) for name in table.column_names}
        for name, column in columns.items():
            if column.null_count:
                raise ValueError(f"column {name!r} lacks a value")
        items = Items(
            ids=tuple(columns["id"].to_pylist()),
            titles=tuple(columns["title"].to_pylist()),
            texts=tuple(columns["text"].to_pylist()),
            details={
                name.removeprefix("detail:"): tuple(column.to_pylist())
                for name, column in columns.items()
                if name.startswith("detail:")
            },
        )
        statistics = Statistics(numbers(columns["rating_sum"]), numbers(columns["rating_count"]))
        written = parse_json(texts["scale"], where=f"{run.catalogue}, scale", remedy=RESTORE)
        believed = parse_json(texts.get("beliefs", "false"), where=f"{run.catalogue}, beliefs", remedy=RESTORE)
        if not isinstance(written, dict):
            raise ValueError("its scale is no object")
        standardised = parse_json(
            texts.get("standardised", "false"), where=f"{run.catalogue}, standardised", remedy=RESTORE
        )
        scale = scale_from_json(written)
    if not standardised and not scale.is_standard:
        raise MetarecError(
            f"{run.folder} was trained on ratings of {scale.low:.7g} to {scale.high:.7g} by an earlier version, which "
            "did not move them to a standard scale: use that version with this run, or train it anew"
        )
    arrays, _ = read_arrays(run.embeddings, map_above=MAPPED)
    with reading(run.embeddings):
        embeddings, vectors = arrays["items"], arrays.get("vectors")
        if embeddings.dtype != np.float32 or len(embeddings.shape) != 2:
            raise ValueError(f"its items are {embeddings.dtype} of shape {embeddings.shape}, not float32 rows")
        parts = embeddings.blocks() if isinstance(embeddings, FileRows) else [embeddings]
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError("its items are not finite")
        vectors = vectors[:] if isinstance(vectors, FileRows) else vectors
        if vectors is not None and (vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(items)):
            raise ValueError(f"its vectors are {vectors.dtype} of shape {vectors.shape}, not one float32 row an item")
    if len(embeddings) != len(items):
        raise MetarecError(
            f"{run.embeddings} has {len(embeddings)} rows, but {run.catalogue} has {len(items)} items: {RESTORE}"
        )
    items = dataclasses.replace(items, vectors=vectors, pictures=picture_file.load(run.pictures, len(items)))
    if not believed:
        return Catalogue(items, statistics, embeddings, scale)
    beliefs = io.load(run.beliefs, len(items))
    return Catalogue(items, statistics._replace(beliefs=beliefs.table), embeddings, scale, beliefs)
