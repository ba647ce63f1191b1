"""Read configs that earlier versions wrote."""

from __future__ import annotations

from typing import Any

from metarec_jax.core.errors import MetarecError

LAYOUT = 3
"""Version of the run folder and its config.json."""
READABLE = (1, 2, LAYOUT)
"""Versions that can be read."""

_OWN = {
    "learner": {
        "layers": ("transformer", "recurrent"),
        "width": ("transformer", "recurrent"),
        "heads": ("transformer",),
    },
    "updater": {"momentum": ("momentum",), "precision": ("imaml", "ridge")},
}
"""Options that version 1 wrote for every kind, and the kinds that have them."""
_EXECUTION = {
    "encoder": {"scan", "remat", "keep", "tokens_per_call"},
    "updater": {"form", "remat"},
    "train": {"save_every"},
}
"""Options of versions 1 and 2 that change results by rounding only: rules choose them now."""
_CONSTANT: dict[str, dict[str, Any]] = {
    "encoder": {"normalise": True, "rate_decay": 1.0, "lora_layers": [r"layer_\d+/(query|value)"], "dropout": 0.0},
    "factors": {
        "bias": 0.16,
        "text": 0.25,
        "details": 0.06,
        "popularity": 0.075,
        "vectors": 0.25,
        "item": 0.5,
        "strength": 20.0,
        "choices": 100.0,
        "profile": 2000.0,
        "noise": 0.8,
        "iterations": 12,
        "mean_text": 0.02,
        "mean_details": 0.15,
        "mean_popularity": 0.02,
        "mean_vectors": 0.02,
        "mean_item": 0.34,
        "mean_noise": 2.6,
        "mean_users": 0.7,
        "items": 4096,
        "folds": 5,
        "text_dropout": 0.0,
        "details_dropout": 0.0,
        "vectors_dropout": 0.0,
    },
    "learner": {"heads": 4, "item_dropout": 0.0, "user_dropout": 0.5},
    "updater": {"momentum": 0.9, "doubt": 0.0, "clip": 0.0, "multi_step": 0.0},
    "train": {"warmup": 0.1, "clip": 1.0},
    "": {"warmup": 0.1, "clip": 1.0},
}
"""Options of versions 1 and 2 that are constants now, and their values; those of a pretraining are under ""."""


def upgrade(document: dict[str, Any], layout: int, where: str) -> dict[str, Any]:
    """Bring a config's JSON to the present version.

    Args:
        document: sections and their options.
        layout: the version that wrote it, one of `READABLE`.
        where: the file's name, for an error.

    Returns:
        The same without options that are gone.

    Raises:
        MetarecError: an option that is a constant now had another value.
    """
    if layout == LAYOUT:
        return document
    found = {name: value for name, value in document.items() if _kept("", document, name, layout, where)}
    for name, section in found.items():
        if isinstance(section, dict):
            found[name] = {option: section[option] for option in section if _kept(name, section, option, layout, where)}
    return found


def _kept(name: str, section: dict[str, Any], option: str, layout: int, where: str) -> bool:
    value, owners = section[option], _OWN.get(name, {}).get(option)
    if owners is not None and section.get("kind") not in owners:
        return layout > 1  # later versions wrote it only for a kind of a plugin, which has an option of that name
    if option in _EXECUTION.get(name, ()):
        return False
    if (name, option) == ("encoder", "attention") and value in ("xla", "packed"):
        return False
    constants = _CONSTANT.get(name, {})
    if option not in constants:
        return True
    if value != constants[option]:
        full = f"{name}.{option}" if name else option
        raise MetarecError(
            f"{where}: {full} is {value!r}, an option of an earlier version that is now always {constants[option]!r}: "
            "use that version with this run, or train it anew"
        )
    return False
