"""What a trained model must know of the items: who they are, their embeddings, and how they were rated in training."""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

import numpy as np

from metarec_jax.core.checked_files import RESTORE, numbers, read_arrays, read_table, reading, write_arrays, write_table
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Interactions, Items, Kind
from metarec_jax.data.splits import Statistics
from metarec_jax.factors import io
from metarec_jax.factors.item_factors import Beliefs
from metarec_jax.train.run_folder import Run


class Scale(NamedTuple):
    """What ratings can be: see `metarec_jax.core.types.Interactions`."""

    kind: Kind
    levels: tuple[float, ...]
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Everything but the parameters that scoring needs.

    Attributes:
        items: who they are.
        statistics: the training users' ratings of each.
        embeddings: float32 [items, hidden].
        scale: of the ratings.
        beliefs: what was learned of items beside counts; None where nothing was.
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
    """Writes `catalogue` into a run folder, as Parquet and safetensors."""
    import pyarrow as pa

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
    )
    arrays = {"items": catalogue.embeddings} | ({} if items.vectors is None else {"vectors": items.vectors})
    write_arrays(run.embeddings, {name: np.asarray(array, np.float32) for name, array in arrays.items()})
    if catalogue.beliefs is not None:
        io.save(catalogue.beliefs, run.beliefs)
    write_table(
        run.catalogue,
        table,
        {"scale": json.dumps(catalogue.scale._asdict()), "beliefs": json.dumps(catalogue.beliefs is not None)},
    )


def load(run: Run) -> Catalogue:
    """Reads the catalogue of a run folder.

    Raises:
        MetarecError: a file is missing, damaged, or does not belong to the other.
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
        written = json.loads(texts["scale"])
        believed = json.loads(texts.get("beliefs", "false"))
        scale = Scale(written["kind"], tuple(written["levels"]), written["low"], written["high"])
    arrays, _ = read_arrays(run.embeddings)
    with reading(run.embeddings):
        embeddings, vectors = arrays["items"], arrays.get("vectors")
        if embeddings.dtype != np.float32 or embeddings.ndim != 2:
            raise ValueError(f"its items are {embeddings.dtype} of shape {embeddings.shape}, not float32 rows")
        if not np.isfinite(embeddings).all():
            raise ValueError("its items are not finite")
        if vectors is not None and (vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != len(items)):
            raise ValueError(f"its vectors are {vectors.dtype} of shape {vectors.shape}, not one float32 row an item")
    if len(embeddings) != len(items):
        raise MetarecError(
            f"{run.embeddings} has {len(embeddings)} rows, but {run.catalogue} has {len(items)} items: {RESTORE}"
        )
    items = dataclasses.replace(items, vectors=vectors)
    if not believed:
        return Catalogue(items, statistics, embeddings, scale)
    beliefs = io.load(run.beliefs, len(items))
    return Catalogue(items, statistics._replace(beliefs=beliefs.table), embeddings, scale, beliefs)
