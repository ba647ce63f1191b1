"""What a run stores of its data set, division and software at its start, for its model card.

A model card can be written long after training, on a machine without the data: everything that it says of the data is
in ``about.json`` of the run folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metarec_jax.core.atomic_files import write_text
from metarec_jax.core.environment import environment
from metarec_jax.core.kinds import SOURCES
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.run_folder import Run


def about_file(run: Run) -> Path:
    """Path of ``about.json`` in the run folder."""
    return run.folder / "about.json"


def keep(run: Run, experiment: Experiment, *, loaded: bool) -> None:
    """Write ``about.json`` of a new run.

    Args:
        run: the run folder.
        experiment: data and division.
        loaded: whether the data set is that of the config; otherwise it was passed in Python.
    """
    write_text(about_file(run), json.dumps(describe(experiment, loaded=loaded), indent=1) + "\n")


def describe(experiment: Experiment, *, loaded: bool) -> dict[str, Any]:
    """Collect the facts.

    Where only outer steps may use the data of training users (`metarec_jax.config.training`), their number is the only
    count of theirs that is stored, which the guarantee does not treat as secret.

    Args:
        experiment: data and division.
        loaded: as for `keep`.

    Returns:
        JSON-ready values: ``data``, ``split`` and ``environment``.
    """
    data, config, splits = experiment.data, experiment.config, experiment.splits
    counted = not config.training.only_steps
    name = source_name(data.layout, config.data.reader if loaded else "")
    return {
        "data": {
            "name": name or "own data",
            "loaded": loaded,
            "layout": data.layout,
            "citation": data.citation,
            "licence": licence_of(name),
            "kind": data.kind,
            "low": data.scale.low,
            "high": data.scale.high,
            "items": len(data.items),
            **({"users": len(data.users), "rows": len(data)} if counted else {}),
        },
        "split": {
            "kind": config.split.kind,
            **({"description": experiment.division.description} if counted else {}),
            "users": {
                "train": len(splits.train),
                "validation": len(splits.validation),
                "test": len(splits.test),
            },
        },
        "environment": environment(),
    }


def source_name(layout: str, reader: str) -> str:
    """Find the source that describes a data set.

    Args:
        layout: layout of the files that were read, as `Interactions.layout`.
        reader: source that the config names; "" if the data set is not that of the config.

    Returns:
        The name of the layout if it is registered, or else the reader if it reads no files, or ""; for files of the
        user's own there is none.
    """
    names = SOURCES.names()
    if layout in names:
        return layout
    return reader if not layout and reader in names and SOURCES.get(reader).layout is None else ""


def licence_of(name: str) -> str:
    """Terms of the data of a source, from `metarec_jax.data.sources.source.Source`; "" where they are not known."""
    return SOURCES.get(name).licence if name in SOURCES.names() else ""
