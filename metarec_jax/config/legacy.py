"""Read configs that earlier versions wrote."""

from __future__ import annotations

from typing import Any

LAYOUT = 2
"""Version of the run folder and its config.json."""
READABLE = (1, LAYOUT)
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
_CHOSEN = {"encoder": {"scan": (False, True), "attention": ("xla", "packed")}}
"""Options of version 1, and the values that are now chosen by platform (`metarec_jax.encoder.choose_execution`)."""


def upgrade(document: dict[str, Any], layout: int) -> dict[str, Any]:
    """Bring a config's JSON to the present version.

    Args:
        document: sections and their options.
        layout: the version that wrote it, one of `READABLE`.

    Returns:
        The same without options that have no effect.
    """
    if layout == LAYOUT:
        return document
    found = {}
    for name, section in document.items():
        own, chosen = _OWN.get(name, {}), _CHOSEN.get(name, {})
        if isinstance(section, dict):
            section = {
                option: value
                for option, value in section.items()
                if (option not in own or section.get("kind") in own[option]) and value not in chosen.get(option, ())
            }
        found[name] = section
    return found
