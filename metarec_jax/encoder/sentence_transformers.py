"""How the makers of a checkpoint turn its tokens into one vector, where its folder says so.

Sentence-transformers (Reimers & Gurevych 2019, arXiv 1908.10084) keeps a chain of modules beside the weights:
modules.json names them, and 1_Pooling/config.json says how tokens are pooled. These are hints, nothing is computed
from them: what a model does is in its configuration, and where the two differ the user is told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

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
    """What a folder says of its vectors.

    Attributes:
        pooling: "mean", "cls", or what this package does not compute, such as "max" or "mean + max"; None where the
            folder does not say.
        normalise: whether vectors are scaled to unit length; None where the folder does not say.
        others: modules after the encoder that this package leaves out, such as "Dense".
    """

    pooling: str | None = None
    normalise: bool | None = None
    others: tuple[str, ...] = ()


def read_hints(folder: Path) -> Hints:
    """The hints of a folder; none where it has no such files, or none that can be read."""
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


def contradictions(hints: Hints, *, pooling: str, normalise: bool) -> list[str]:
    """A sentence for each way in which a configuration departs from the hints.

    >>> contradictions(Hints("cls", True), pooling="mean", normalise=True)
    ["the encoder's folder says pooling 'cls', and encoder.pooling is 'mean': --encoder.pooling cls follows it"]
    """
    found = []
    if hints.pooling is not None and hints.pooling != pooling:
        follow = "--encoder.pooling cls" if hints.pooling == "cls" else "--encoder.pooling mean"
        remedy = f"{follow} follows it" if hints.pooling in ("mean", "cls") else "this package does not compute that"
        found.append(
            f"the encoder's folder says pooling {hints.pooling!r}, and encoder.pooling is {pooling!r}: {remedy}"
        )
    if hints.normalise is not None and hints.normalise != normalise:
        says, follow = (
            ("scales vectors to unit length, and encoder.normalise is off", "--encoder.normalise")
            if hints.normalise
            else ("leaves vectors at their own length, and encoder.normalise is on", "--encoder.no-normalise")
        )
        found.append(f"the encoder's folder {says}: {follow} follows it")
    if hints.others:
        found.append(f"the encoder's folder has modules that this package leaves out: {', '.join(hints.others)}")
    return found


def _pooling(settings: Any) -> str | None:
    if not isinstance(settings, dict):
        return None
    if isinstance(settings.get("pooling_mode"), str):
        return settings["pooling_mode"]
    chosen = [name for key, name in _POOLINGS.items() if settings.get(key) is True]
    return " + ".join(chosen) or None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
