"""Read configs that earlier versions wrote."""

from __future__ import annotations

from typing import Any, TypeVar

from metarec_jax.config.data import EpisodeConfig, ending_at
from metarec_jax.config.paths import is_folder, paths_of, with_paths
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import ENCODERS

Chosen = TypeVar("Chosen")

LAYOUT = 4
"""Version of the run folder and its config.json."""
READABLE = (1, 2, 3, LAYOUT)
"""Versions that can be read."""

_OWN = {
    "learner": {
        "layers": ("transformer", "recurrent"),
        "width": ("transformer", "recurrent"),
        "heads": ("transformer",),
    },
    "updater": {"momentum": ("momentum",), "precision": ("imaml", "ridge")},
}
"""Options that version 1 wrote for every kind of learner or updater, and the kinds that use them."""
_EXECUTION = {
    "encoder": {"scan", "remat", "keep", "tokens_per_call"},
    "updater": {"form", "remat"},
    "train": {"save_every"},
}
"""Options of versions 1 and 2 that change results only by rounding; the program now sets them automatically."""
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
    "contrastive": {"liked": 0.75},
    "learner": {"heads": 4, "item_dropout": 0.0, "user_dropout": 0.5},
    "updater": {"momentum": 0.9, "doubt": 0.0, "clip": 0.0, "multi_step": 0.0},
    "train": {"warmup": 0.1, "clip": 1.0},
    "": {"warmup": 0.1, "clip": 1.0},
}
"""Options of versions 1 and 2 that are constants now, and their values. The key "" holds those of pretraining."""
_LATER: dict[str, dict[str, Any]] = {
    "encoder": {"query_prompt": "", "document_prompt": "", "pool_prompt": "yes", "dense": False, "dims": 0},
    "factors": {"mixing": 1.0},
}
"""Options with which runs were trained before the options existed."""


def upgrade(document: dict[str, Any], layout: int, where: str) -> dict[str, Any]:
    """Convert the JSON of a config to the current version.

    Args:
        document: sections of the config and their options.
        layout: version that wrote the config, one of `READABLE`.
        where: name of the file, for error messages.

    Returns:
        The document without removed options, and with the values that options added later had in effect.

    Raises:
        MetarecError: an option that is a constant now has another value.
    """
    found = document
    if layout < LAYOUT:
        found = {name: value for name, value in document.items() if _kept("", document, name, layout, where)}
        for name, section in found.items():
            if isinstance(section, dict):
                kept = {option: section[option] for option in section if _kept(name, section, option, layout, where)}
                found[name] = kept
    if isinstance(found.get("episodes"), dict):
        found = found | {"episodes": _with_support(found["episodes"])}
    later = {name: options | found[name] for name, options in _LATER.items() if isinstance(found.get(name), dict)}
    return found | later


def _with_support(episodes: dict[str, Any]) -> dict[str, Any]:
    """End the buckets at the greatest support, which earlier versions wrote beside them as ``max_support``."""
    most, buckets = episodes.get("max_support"), episodes.get("buckets", list(EpisodeConfig().buckets))
    if type(most) is not int or not isinstance(buckets, list) or not all(type(length) is int for length in buckets):
        return episodes
    rest = {name: value for name, value in episodes.items() if name != "max_support"}
    return rest | {"buckets": list(ending_at(buckets, most))}


def located(config: Chosen, layout: int) -> Chosen:
    """Mark a relative encoder folder of a run before layout 4 as a folder, so that it is not taken for a hub id.

    Args:
        config: config of the run.
        layout: version that wrote the config. The paths of a run are absolute since version 4.

    Returns:
        The config, with "./" before the encoder's path if the path is neither absolute, a registered name nor a model
        in the hub's cache.
    """
    path = paths_of(config)["encoder.path"]
    if layout >= 4 or path in ENCODERS.names() or is_folder(path):
        return config
    import huggingface_hub

    try:
        cached = huggingface_hub.try_to_load_from_cache(path, "config.json")
    except ValueError:  # the path is not a valid hub id
        cached = None
    return config if isinstance(cached, str) else with_paths(config, {"encoder.path": f"./{path}"})


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
