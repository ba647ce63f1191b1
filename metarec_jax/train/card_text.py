"""The model card of a run as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_LONGEST = 400
"""Most characters of a text from the run's files."""
_OWN = "not known to this package: the owner of the run has to state it"


def to_markdown(card: Mapping[str, Any]) -> str:
    """Format a model card.

    Args:
        card: from `metarec_jax.train.card.collect`.

    Returns:
        Markdown.
    """
    sections = {
        "Data": _data(card["data"]),
        "Split": _split(card["split"]),
        "Model": _model(card["model"]),
        "Training": _training(card["training"]),
        "Metrics": _metrics(card["evaluation"]),
        "Guarantee to training users": _guarantee(card["guarantee"]),
        "Limits": [f"- {limit}" for limit in map(_plain, card["limits"])],
        "How to reproduce": _reproduce(card["reproduce"], card["data"]),
        "Missing from the run folder": [f"- {what}" for what in map(_plain, card["missing"])],
    }
    lines = [f"# Model card: {_plain(card['run'])}", "", "A meta-learned recommender, trained with metarec_jax."]
    for title, body in sections.items():
        if body:
            lines += ["", f"## {title}", "", *body]
    return "\n".join(lines) + "\n"


def _plain(text: Any) -> str:
    """A text from the run's files on one line, in which nothing is Markdown for a table or HTML."""
    line = " ".join(str(text).split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
    return line.replace("|", "\\|").replace("<", "&lt;")


def _facts(facts: Mapping[str, Any]) -> list[str]:
    """A list of names and values; those that are not known ("" or None) are left out."""
    return [f"- {name}: {_plain(value)}" for name, value in facts.items() if value not in ("", None)]


def _data(data: Mapping[str, Any]) -> list[str]:
    kind = "clicks" if data["kind"] == "click" else "ratings"
    scale = f"{data['low']:g} to {data['high']:g}" if kind == "ratings" and "low" in data else ""
    return _facts(
        {
            "data set": data["name"],
            "files": data["files"],
            "read as": data.get("layout", "") if data.get("layout") != data["name"] else "",
            kind: f"{data['rows']:,}" if "rows" in data else "",
            "scale": scale,
            "users": f"{data['users']:,}" if "users" in data else "",
            "items": f"{data['items']:,}" if data.get("items") is not None else "",
            "licence of the data": data["licence"] or _OWN,
            "cite": data["citation"],
        }
    )


def _split(split: Mapping[str, Any]) -> list[str]:
    users = split.get("users", {})
    return _facts(
        {
            "protocol": split["kind"],
            "in words": split.get("description", ""),
            "users": ", ".join(f"{number:,} {part}" for part, number in users.items()),
            "tasks": f"{split['query']} query rows and at most {split['most_support']} support rows of a user",
            "seed": split["seed"],
        }
    )


def _model(model: Mapping[str, Any]) -> list[str]:
    trained = {"no": "frozen", "all": "trained", "lora": "trained by LoRA"}
    return _facts(
        {
            "text encoder": f"{model['encoder']}, {trained.get(model['encoder_trained'], model['encoder_trained'])} "
            "(its licence is that of its publisher)",
            "learner": f"{model['learner']}, head {model['head']}",
            "text of a user": model["user_text"],
            "inner loop": f"{model['updater']}, {model['inner_steps']} steps",
            "item factors": model["factors"] or "none",
        }
    )


def _training(training: Mapping[str, Any]) -> list[str]:
    facts: dict[str, Any] = {}
    if "epochs" in training:
        last, least = training["last"], training["least_validation_loss"]
        facts = {
            "epochs": f"{training['epochs']} ({training['steps']:,} outer steps)",
            "validation loss": f"{last['validation_loss']:.4f} at the end, at least {least['loss']:.4f} in epoch "
            f"{least['epoch']}",
            "parameters kept": f"those of {training['chooses']}",
        }
    if "seconds" in training:
        facts["time"] = f"{training['seconds']:,.0f} s"
    return _facts(facts)


def _metrics(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["This run has not been evaluated: `metarec evaluate RUN` adds test metrics with intervals."]
    lines = []
    if evaluation["older_than_parameters"]:
        lines += ["**The parameters were written after this evaluation**: evaluate again.", ""]
    for scenario in evaluation["scenarios"]:
        lines += [*_scenario(scenario), ""]
    lines += [
        "Brackets are 95 % intervals: bootstrap over test users, paired for differences; \\* marks a difference whose "
        "interval excludes zero.",
        "",
        f"Made by `metarec evaluate`; {_plain(evaluation['made'])}.",
    ]
    return lines


def _scenario(scenario: Mapping[str, Any]) -> list[str]:
    against, seeds, users = scenario["against"], scenario["seeds"], scenario["users"]
    lines = [f"### {_plain(scenario['title'])}", "", *(f"- {_plain(note)}" for note in scenario["notes"])]
    lines += [f"- seeds: {', '.join(map(str, seeds))}" + (f"; test users: {users:,}" if users is not None else ""), ""]
    header = ["metric", scenario["method"], *([against, "difference"] if against else [])]
    lines += [f"| {' | '.join(map(_plain, header))} |", f"|---|{'---:|' * (len(header) - 1)}"]
    for metric in scenario["metrics"]:
        arrow = "↓" if metric["better"] == "lower" else "↑"
        cells = [f"{metric['title']} {arrow}", _value(metric["mean"], metric["interval"])]
        if against:
            ends = metric["difference_interval"]
            difference = _value(metric["difference"], ends, "+")
            cells += [_value(metric["reference"], None), difference + ("\\*" if _excludes_zero(ends) else "")]
        lines.append(f"| {' | '.join([_plain(cells[0]), *cells[1:]])} |")
    return lines


def _value(value: float | None, ends: Sequence[float | None] | None, sign: str = "") -> str:
    if value is None:
        return "–"
    text = f"{value:{sign}.3f}"
    if ends is None or None in ends:
        return text
    return f"{text} [{', '.join(f'{end:{sign}.3f}' for end in ends)}]"


def _excludes_zero(ends: Sequence[float | None] | None) -> bool:
    low, high = ends or (None, None)
    return low is not None and high is not None and (low > 0 or high < 0)


def _guarantee(guarantee: Mapping[str, Any] | None) -> list[str]:
    if guarantee is None:
        return ["None: this run was not trained privately."]
    return [f"{_plain(guarantee['statement'])}.", "", *_facts(guarantee["details"])]


def _reproduce(reproduce: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    lines = ["With the `config.json` of the run folder:", "", "```", *reproduce["commands"], "```"]
    if reproduce["notes"] or reproduce["made_with"]:
        lines.append("")
    lines += [f"- note: {_plain(note)}" for note in reproduce["notes"]]
    if reproduce["made_with"]:
        lines.append(f"- made with: {_plain(reproduce['made_with'])}")
    if data["digests"]:
        lines += ["", "sha256 of the inputs:", ""]
        lines += [f"- {_plain(name)}: `{_plain(digest)}`" for name, digest in data["digests"].items()]
    return lines
