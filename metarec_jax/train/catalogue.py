"""The catalogue of a run: items with their embeddings, statistics of training ratings, and factors."""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

import numpy as np

from metarec_jax.core.atomic_files import replacing
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions, Items, Kind
from metarec_jax.data.splits import Statistics
from metarec_jax.factors import io
from metarec_jax.factors.item_factors import Beliefs
from metarec_jax.train.run_folder import Run


class Scale(NamedTuple):
    """The rating scale; fields as in `metarec_jax.core.types.Interactions`."""

    kind: Kind
    levels: tuple[float, ...]
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Everything except parameters that scoring needs.

    Attributes:
        items: the items.
        statistics: statistics of the training users' ratings.
        embeddings: float32 [items, hidden].
        scale: scale of the ratings.
        beliefs: the item factor model; None without item factors.
    """

    items: Items
    statistics: Statistics
    embeddings: np.ndarray
    scale: Scale
    beliefs: Beliefs | None = None


def scale_of(data: Interactions) -> Scale:
    """The scale of a data set's ratings."""
    return Scale(data.kind, data.levels, data.low, data.high)


def save(catalogue: Catalogue, run: Run) -> None:
    """Write a catalogue to a run folder, as Parquet and safetensors.

    Args:
        catalogue: the catalogue.
        run: the run folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    items = catalogue.items
    table = pa.table(
        {
            "id": list(items.ids),
            "title": list(items.titles),
            "text": list(items.texts),
            **{f"detail:{name}": list(values) for name, values in items.details.items()},
            "rating_sum": catalogue.statistics.total,
            "rating_count": catalogue.statistics.count,
        }
    ).replace_schema_metadata(
        {"scale": json.dumps(catalogue.scale._asdict()), "beliefs": json.dumps(catalogue.beliefs is not None)}
    )
    arrays = {"items": catalogue.embeddings} | ({} if items.vectors is None else {"vectors": items.vectors})
    with replacing(run.embeddings) as path:
        save_file({name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}, path)
    if catalogue.beliefs is not None:
        io.save(catalogue.beliefs, run.beliefs)
    with replacing(run.catalogue) as path:
        pq.write_table(table, path)


def load(run: Run) -> Catalogue:
    """Read the catalogue of a run folder.

    Raises:
        MetarecError: a file is missing or damaged, or the files do not belong together.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    remedy = "restore it from a copy, or train the run again"
    try:
        with pq.ParquetFile(run.catalogue) as file:  # unlike read_table, it does not import pandas
            table = file.read()
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
        statistics = Statistics(
            *(
                # Arrow's own to_numpy imports pandas where it is installed.
                np.concatenate([np.from_dlpack(chunk) for chunk in columns[name].chunks])
                for name in ("rating_sum", "rating_count")
            )
        )
        written = json.loads(table.schema.metadata[b"scale"])
        believed = json.loads(table.schema.metadata.get(b"beliefs", b"false"))
        scale = Scale(written["kind"], tuple(written["levels"]), written["low"], written["high"])
    except FileNotFoundError as error:
        raise MetarecError(f"{run.catalogue} does not exist: {remedy}") from error
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise MetarecError(f"{run.catalogue} is damaged ({error}): {remedy}") from error
    try:
        arrays = load_file(run.embeddings)
        embeddings, vectors = arrays["items"], arrays.get("vectors")
        if embeddings.dtype != np.float32 or embeddings.ndim != 2:
            raise ValueError(f"its items are {embeddings.dtype} of shape {embeddings.shape}, not float32 rows")
        if not np.isfinite(embeddings).all():
            raise ValueError("its items are not finite")
        if vectors is not None and (vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(items)):
            raise ValueError(f"its vectors are {vectors.dtype} of shape {vectors.shape}, not one float32 row an item")
    except FileNotFoundError as error:
        raise MetarecError(f"{run.embeddings} does not exist: {remedy}") from error
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise MetarecError(f"{run.embeddings} is damaged ({error}): {remedy}") from error
    if len(embeddings) != len(items):
        raise MetarecError(
            f"{run.embeddings} has {len(embeddings)} rows, but {run.catalogue} has {len(items)} items: {remedy}"
        )
    items = dataclasses.replace(items, vectors=vectors)
    if not believed:
        return Catalogue(items, statistics, embeddings, scale)
    beliefs = io.load(run.beliefs, len(items))
    return Catalogue(items, statistics._replace(beliefs=beliefs.table), embeddings, scale, beliefs)
