"""The model card of a run: what it was trained on, how it was measured, and what it must not be used for.

A card is made of the files of the run folder alone: ``config.json``, ``about.json``, ``inputs.json``,
``metrics.jsonl``, ``goodput.json``, ``catalogue.parquet`` and ``tables/evaluation.json``. Its metrics are those of the
evaluation, which has computed their intervals. A file that is missing or damaged is named in the card.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from metarec_jax.core.atomic_files import write_text
from metarec_jax.core.checked_files import read_table
from metarec_jax.core.environment import summary
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.train.about import about_file, licence_of
from metarec_jax.train.card_text import to_markdown
from metarec_jax.train.run_folder import Run

_DAMAGED = (MetarecError, LookupError, TypeError, ValueError, AttributeError, OSError)
"""Errors of reading a file that does not hold what the package writes."""


def write(run: Run) -> None:
    """Write ``card.md`` into the run folder.

    Args:
        run: the run folder.

    Raises:
        MetarecError: the file cannot be written.
    """
    write_text(run.folder / "card.md", to_markdown(collect(run)))


def collect(run: Run) -> dict[str, Any]:
    """Collect the content of a model card.

    Args:
        run: the run folder.

    Returns:
        JSON-ready values: ``run``, ``data``, ``split``, ``model``, ``training``, ``evaluation`` (None where the run was
        not evaluated), ``guarantee`` (to training users; None where there is none), ``limits``, ``reproduce``, and
        ``missing``, a sentence for each file that is not there or cannot be read.
    """
    missing: list[str] = []

    def read(path: Path, parts: Callable[[Path], Any], otherwise: str) -> Any:
        """What a function makes of a file of the run, or None with a sentence in ``missing``."""
        name = path.relative_to(run.folder) if path != run.folder else "the record of the guarantee"
        try:
            if path.exists():
                return parts(path)
            missing.append(f"{name} is not there: {otherwise}")
        except _DAMAGED:
            missing.append(f"{name} is damaged: {otherwise}")
        return None

    about = read(
        about_file(run),
        _about,
        "numbers of users and ratings, citation and versions are not known (an earlier version)",
    )
    digests = read(run.inputs, _texts, "nothing tells whether data and encoder are the same as in training")
    training = read(run.metrics, lambda _: _losses(run), "how training went is not known")
    seconds = read(run.goodput, _seconds, "how long training took is not known")
    evaluation = read(run.folder / "tables" / "evaluation.json", _evaluation, "the run has no test metrics")
    if evaluation is not None:
        evaluation["older_than_parameters"] = _older(run.folder / "tables" / "evaluation.json", run.parameters)
    guarantee = None
    if run.config.training.guarantee:
        module = importlib.import_module(run.config.training.guarantee)
        guarantee = read(run.folder, lambda _: module.guarantee(run), "what it guarantees to its users is not known")
        guarantee = guarantee or {"statement": "trained for a guarantee of which there is no record", "details": {}}
    data = _data(run, about, digests)
    if "items" not in data:
        data["items"] = read(run.catalogue, lambda path: read_table(path)[0].num_rows, "its items are not known")
    return {
        "run": run.folder.name,
        "data": data,
        "split": _split(run, about),
        "model": _model(run),
        "training": {**(training or {}), **({} if seconds is None else {"seconds": seconds})},
        "evaluation": evaluation,
        "guarantee": guarantee,
        "limits": _limits(run, data, evaluation, guarantee),
        "reproduce": _reproduce(data, evaluation, about),
        "missing": missing,
    }


def _data(run: Run, about: Mapping[str, Any] | None, digests: Mapping[str, str] | None) -> dict[str, Any]:
    config = run.config.data
    if about is None:
        named = config.reader if config.reader not in ("auto", "table") else ""
        found = {"name": named or "own data", "kind": config.kind, "licence": licence_of(named), "citation": ""}
    else:
        found = dict(about["data"])
    return {**found, "files": Path(config.path).name, "digests": dict(digests or {})}


def _split(run: Run, about: Mapping[str, Any] | None) -> dict[str, Any]:
    episodes = run.config.episodes
    return {
        "kind": run.config.split.kind,
        "seed": run.config.seed,
        "query": episodes.query,
        "most_support": episodes.max_support,
        **({} if about is None else about["split"]),
    }


def _model(run: Run) -> dict[str, Any]:
    config = run.config
    path = config.encoder.path
    return {
        "encoder": Path(path).name if Path(path).is_absolute() else path,
        "encoder_trained": config.encoder.train,
        "learner": config.learner.kind,
        "head": config.learner.head,
        "user_text": config.learner.user_side,
        "updater": config.updater.kind,
        "inner_steps": config.updater.steps,
        "factors": config.factors.rank if config.has_factors else 0,
    }


def _about(path: Path) -> dict[str, Any]:
    """The content of ``about.json``, checked as far as the card needs it."""
    found = read_json(path)
    data, split = dict(found["data"]), dict(found["split"])
    _require(data, {"name": str, "loaded": bool, "citation": str, "licence": str, "kind": str, "items": int})
    _require({"rows": 0, "users": 0, **data}, {"rows": int, "users": int, "low": int | float, "high": int | float})
    _require({"description": "", **split}, {"kind": str, "description": str, "users": dict})
    _require(split["users"], {"train": int, "validation": int, "test": int})
    summary(found["environment"])
    return found


def _require(tree: Any, kinds: Mapping[str, Any]) -> None:
    """Raise a `TypeError` if a document is no object, or a value is not of its type."""
    if not isinstance(tree, Mapping):
        raise TypeError("no object")
    for name, kind in kinds.items():
        if not isinstance(tree[name], kind):
            raise TypeError(name)


def _texts(path: Path) -> dict[str, str]:
    found = read_json(path)
    _require(found, {})
    _require(found, dict.fromkeys(found, str))
    return found


def _seconds(path: Path) -> float:
    return round(sum(float(spent) for spent in read_json(path)["seconds"].values()), 1)


def _losses(run: Run) -> dict[str, Any]:
    """Number of epochs, and the epoch with the least validation loss, from the lines of metrics."""
    wanted = {"epoch": int, "step": int, "validation_loss": int | float, "train_loss": int | float}
    lines = [line for line in run.read_metrics() if all(isinstance(line.get(n), k) for n, k in wanted.items())]
    lines = [line for line in lines if math.isfinite(line["validation_loss"]) and math.isfinite(line["train_loss"])]
    if not lines:
        raise ValueError("no epoch")
    best = min(lines, key=lambda line: line["validation_loss"])
    return {
        "epochs": lines[-1]["epoch"],
        "steps": lines[-1]["step"],
        "last": {name: lines[-1][name] for name in ("train_loss", "validation_loss")},
        "least_validation_loss": {"loss": best["validation_loss"], "epoch": best["epoch"]},
        "chooses": "the last epoch" if run.config.training.only_steps else "the least validation loss",
    }


def _evaluation(path: Path) -> dict[str, Any]:
    """The model's part of ``tables/evaluation.json``: means, intervals, and the difference from the first baseline."""
    document = read_json(path)
    tables = document.get("scenarios", {"": document})
    scenarios = [{"name": name, **_scenario(table)} for name, table in tables.items()]
    made = document["environment"]
    _require(made, {"date": str})
    return {"date": made["date"], "made": summary(made), "seeds": scenarios[0]["seeds"], "scenarios": scenarios}


def _scenario(table: Mapping[str, Any]) -> dict[str, Any]:
    methods = {method["name"]: method for method in table["methods"]}
    own = methods[table["subject"]]
    reference = next((name for name in table["references"] if name in own["differences"]), "")
    differences = own["differences"].get(reference, {})
    metrics = []
    for metric in table["metrics"]:
        _require(metric, {"name": str, "title": str, "better": str, "definition": str})
        name, cell = metric["name"], own["metrics"][metric["name"]]
        compared = differences.get(name)
        metrics.append(
            {
                **{key: metric[key] for key in ("name", "title", "better", "definition")},
                "mean": _number(cell["mean"]),
                "interval": _ends(cell["interval"]),
                "reference": _number(methods[reference]["metrics"][name]["mean"]) if reference else None,
                "difference": None if compared is None else _number(compared["difference"]),
                "difference_interval": _ends(compared),
            }
        )
    intervals = (own["metrics"][metric["name"]]["interval"] for metric in table["metrics"])
    users = next((interval["users"] for interval in intervals if interval), None)
    if users is not None and not isinstance(users, int):
        raise TypeError("users")
    _require(table, {"title": str, "notes": list, "seeds": list})
    return {
        "method": own["name"],
        "title": table["title"],
        "notes": [str(note) for note in table["notes"]],
        "seeds": [int(seed) for seed in table["seeds"]],
        "users": users,
        "against": reference,
        "metrics": metrics,
    }


def _ends(found: Mapping[str, Any] | None) -> list[float | None] | None:
    return None if found is None else [_number(found["low"]), _number(found["high"])]


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _older(table: Path, parameters: Path) -> bool:
    """Whether the parameters were written after the table."""
    return parameters.exists() and parameters.stat().st_mtime_ns > table.stat().st_mtime_ns


def _limits(
    run: Run, data: Mapping[str, Any], evaluation: Mapping[str, Any] | None, guarantee: Mapping[str, Any] | None
) -> list[str]:
    """What follows from the data, the division and the kind of training for the use of the run."""
    most, kind = run.config.episodes.max_support, "clicks" if data["kind"] == "click" else "ratings"
    found = [
        f"Trained and measured on one data set ({data['name']}). For other users, items or years, measure again.",
        f"At most {most} {kind} of a user were read in training and tests; longer histories are cut to that.",
    ]
    if evaluation is None:
        found.append("No test metrics: the validation loss also chose the epoch, and is therefore too low.")
    elif len(evaluation["seeds"]) == 1:
        found.append(
            "One seed: intervals cover the choice of test users, not that of the division or of first parameters."
        )
    if kind == "clicks":
        found.append(
            "Whether an item was shown is not known where the data has clicks alone: popular items gain by it."
        )
    found.append(
        "Whether groups of people are served equally well was not measured, except by number of ratings "
        "(tables/cohorts.json)."
        if evaluation is not None
        else "Whether groups of people are served equally well was not measured."
    )
    if guarantee is None:
        found.append(
            "Nothing is guaranteed to training users: parameters, item statistics and factors may reveal their data."
        )
    return found


def _reproduce(
    data: Mapping[str, Any], evaluation: Mapping[str, Any] | None, about: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Commands that train and evaluate the run again, and the software that it was made with."""
    commands = ["metarec train --config config.json --out NEW", "metarec evaluate NEW"]
    if evaluation is not None and len(evaluation["seeds"]) > 1:
        commands[1] += f" --seeds {len(evaluation['seeds'])}"
    passed = [] if data.get("loaded", True) else ["the data set was passed in Python, to `metarec_jax.meta_train`"]
    return {
        "commands": commands,
        "notes": passed,
        "made_with": None if about is None else summary(about["environment"]),
    }
