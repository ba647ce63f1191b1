"""Pooling and normalisation of a checkpoint as its folder states them.

Sentence-transformers (Reimers & Gurevych 2019, arXiv 1908.10084) stores a list of modules next to the weights:
modules.json names them, and 1_Pooling/config.json states how tokens are pooled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.encoder.bert_config import Pooling

_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_FOLLOWED = ("Transformer", "Pooling", "Normalize")


class Hints(NamedTuple):
    """Pooling and normalisation that a folder states.

    Attributes:
        pooling: "mean", "cls", or a pooling that this package does not compute, such as "max" or "mean + max"; None
            where the folder does not state it.
        normalise: whether vectors are scaled to unit length; None where the folder does not state it.
        others: modules after the encoder that this package leaves out, such as "Dense".
    """

    pooling: str | None = None
    normalise: bool | None = None
    others: tuple[str, ...] = ()

    def resolve(self, pooling: Pooling) -> Pooling:
        """Replace "auto" by the pooling of the folder, or by "mean" if the folder states none that can be computed.

        >>> Hints("cls").resolve("auto"), Hints("cls").resolve("mean"), Hints("max").resolve("auto")
        ('cls', 'mean', 'mean')
        """
        if pooling != "auto":
            return pooling
        return "cls" if self.pooling == "cls" else "mean"

    def remarks(self, pooling: Pooling) -> list[str]:
        """A sentence for each part of the hints that an encoder used this way does not follow.

        Args:
            pooling: as configured. Only "auto" promises to follow the folder.
        """
        found = []
        if pooling == "auto" and self.pooling not in (None, "mean", "cls"):
            found.append(
                f"the encoder's folder says pooling {self.pooling!r}, which this package does not compute: "
                "'mean' is used in its place"
            )
        if self.others:
            found.append(f"the encoder's folder has modules that this package leaves out: {', '.join(self.others)}")
        return found


def read_hints(folder: Path) -> Hints:
    """Read the hints of a folder; they are empty if it has no readable files of this kind."""
    modules = _read(folder / "modules.json")
    if not isinstance(modules, list):
        return Hints()
    kinds, pooling = [], None
    for module in modules:
        kind, path = (str(module.get(key, "")) if isinstance(module, dict) else "" for key in ("type", "path"))
        kinds.append(kind.rpartition(".")[2])
        if kinds[-1] == "Pooling":
            pooling = _pooling(_read(folder / path / "config.json"))
    return Hints(pooling, "Normalize" in kinds, tuple(kind for kind in kinds if kind not in _FOLLOWED))


def write_hints(hints: Hints, folder: Path, hidden_size: int) -> None:
    """Write the files that `read_hints` reads, so that a saved encoder keeps its pooling.

    Args:
        hints: pooling and normalisation to write; nothing is written if the pooling is not known.
        folder: an existing folder.
        hidden_size: width of a token's vector.
    """
    keys = {name: key for key, name in _POOLINGS.items()}
    if hints.pooling not in keys:
        return
    kinds = ["Transformer", "Pooling", *(["Normalize"] if hints.normalise else [])]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds[1:], start=1))]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths))
    ]
    settings = {"word_embedding_dimension": hidden_size} | {key: key == keys[hints.pooling] for key in _POOLINGS}
    (folder / paths[1]).mkdir()
    (folder / paths[1] / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def _pooling(settings: Any) -> str | None:
    if not isinstance(settings, dict):
        return None
    if isinstance(settings.get("pooling_mode"), str):
        return settings["pooling_mode"]
    chosen = [name for key, name in _POOLINGS.items() if settings.get(key) is True]
    return " + ".join(chosen) or None


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except MetarecError:
        return None
