"""Reading and writing of item factors: arrays as safetensors, other values as JSON in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from metarec_jax.core.checked_files import RESTORE, read_arrays, reading, write_arrays
from metarec_jax.core.json_files import parse_json
from metarec_jax.factors.item_factors import FACTORS, Beliefs
from metarec_jax.factors.item_features import Numbers, Sources, Words
from metarec_jax.factors.user_prior import no_tastes


def save(beliefs: Beliefs, path: Path) -> None:
    """Write item factors to a file atomically.

    Args:
        beliefs: the item factors.
        path: path of the safetensors file.

    Raises:
        MetarecError: the file cannot be written.
    """
    sources = beliefs.sources
    details = {
        name: {"words": list(reader.known)}
        if isinstance(reader, Words)
        else {"centres": reader.centres.tolist(), "width": reader.width}
        for name, reader in sources.details.items()
    }
    document = {"noise": beliefs.noise, "sharpness": beliefs.sharpness, "details": details, "scale": sources.scale}
    arrays = {"table": beliefs.table, "of_new": beliefs.of_new}
    arrays |= {f"shift.{name}": shift for name, shift in sources.shift.items()}
    tastes = beliefs.tastes
    arrays |= {"chosen": tastes["choice"]["kernel"], "middle": tastes["choice"]["middle"]}
    arrays |= {"profile": tastes["profile"]["kernel"]}
    if "growth" in tastes:
        arrays["growth"] = tastes["growth"]
    write_arrays(path, arrays, {"beliefs": json.dumps(document)})


def load(path: Path, items: int) -> Beliefs:
    """Read item factors from a file.

    Args:
        path: path of the file.
        items: number of items in the catalogue.

    Returns:
        The item factors.

    Raises:
        MetarecError: the file is missing or damaged, or has another number of items.
    """
    arrays, texts = read_arrays(path)
    with reading(path):
        document = parse_json(texts["beliefs"], where=f"{path}, beliefs", remedy=RESTORE)
        sources = Sources(
            details={name: _reader(reader) for name, reader in document["details"].items()},
            shift={name.removeprefix("shift."): array for name, array in arrays.items() if name.startswith("shift.")},
            scale={name: float(scale) for name, scale in document["scale"].items()},
        )
        table, of_new = (np.asarray(arrays[name], np.float32) for name in ("table", "of_new"))
        width = 1 + sum(len(shift) for shift in sources.shift.values())
        if (
            len(table) != items
            or of_new.shape != (width, table.shape[1])
            or sources.scale.keys() != sources.shift.keys()
        ):
            raise ValueError(f"it is about {len(table)} items, not {items}, or its parts do not fit each other")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("it holds numbers that are not finite")
        chosen, middle, profile = (np.asarray(arrays[name], np.float32) for name in ("chosen", "middle", "profile"))
        rank = table.shape[1] - FACTORS
        if chosen.shape != (rank, rank) or middle.shape != (rank,) or profile.shape[1:] != (rank,):
            raise ValueError("what it expects of tastes does not fit its factors")
        tastes = no_tastes(rank, len(profile))
        tastes["choice"] |= {"kernel": chosen, "middle": middle}
        tastes["profile"] = {"kernel": profile}
        if "growth" in arrays:
            tastes["growth"] = np.asarray(arrays["growth"], np.float32)
            if tastes["growth"].shape != (rank,):
                raise ValueError("the growth of its precisions does not fit its factors")
        sharpness = float(document.get("sharpness", 1.0))
        return Beliefs(table, float(document["noise"]), of_new, sources, tastes, sharpness)


def _reader(document: dict) -> Numbers | Words:
    if "words" in document:
        return Words(tuple(document["words"]))
    return Numbers(np.asarray(document["centres"], np.float64), float(document["width"]))
