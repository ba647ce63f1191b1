"""Options: that each can be given, where their values come from, and where runs are written."""

import dataclasses
import json
import typing
from typing import Literal

import pytest
from trained import trained_run

from metarec_jax.cli.arguments import free_folder, parse, starting_config
from metarec_jax.cli.evaluate import starting_evaluation
from metarec_jax.cli.train import TrainArguments
from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import PRESETS, Config, preset
from metarec_jax.train.run_folder import open_run


def changed(name, hint, value):
    """Another value that the option may have (the same, where it has no other)."""
    if typing.get_origin(hint) is Literal:
        return next((choice for choice in typing.get_args(hint) if choice != value), value)
    match value:
        case bool():
            return not value
        case int():
            return {"max_length": 64}.get(name, value + 1)
        case float():
            return value / 2
        case tuple():
            return (91, 92) if isinstance(value[0], int) else ("output/.*",)
        case _:
            return {"encoding": "latin-1", "liked": "4.5"}.get(name, value + "x")


def every_option(config, prefix="--"):
    hints = typing.get_type_hints(type(config))
    for name in (field.name for field in dataclasses.fields(config)):
        hint, value = hints[name], getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from every_option(value, f"{prefix}{name}.")
        else:
            yield prefix, name, hint, value


OPTIONS = list(every_option(Config()))


@pytest.mark.parametrize(
    ("prefix", "name", "hint", "value"), OPTIONS, ids=[option[0] + option[1] for option in OPTIONS]
)
def test_every_option_of_a_config_can_be_given(prefix, name, hint, value):
    new = changed(name, hint, value)
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        arguments = [f"{prefix}{dashed}" if new else f"{prefix}no-{dashed}"]
    else:
        arguments = [f"{prefix}{dashed}", *map(str, new if isinstance(new, tuple) else [new])]
    # Only what is trained is split, and only a tower reads pictures.
    needed = {"shards": {"--encoder.train": "all"}, "image": {"--data.image_encoder": "x"}}.get(name, {})
    arguments += [part.replace("_", "-") for option in needed.items() for part in option]
    config = parse(TrainArguments, "train", arguments, TrainArguments(config=Config())).config
    found = {p + n: v for p, n, _, v in every_option(config)}
    assert {option: found[option] for option in (p + n for p, n, _, _ in OPTIONS)} == {
        p + n: v for p, n, _, v in OPTIONS
    } | needed | {prefix + name: new}


def test_options_are_taken_from_the_command_line_then_the_file_then_the_preset(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"train": {"epochs": 7, "rate": 0.5}}))
    arguments = ["--preset", "synthetic", "--config", str(path), "--train.epochs", "8"]
    name, base = starting_config("train", arguments)
    config = parse(TrainArguments, "train", arguments, TrainArguments(config=base)).config
    assert name == "mine"
    assert (config.train.epochs, config.train.rate) == (8, 0.5)
    assert config.learner == preset("synthetic").learner


@pytest.mark.parametrize(
    ("section", "kind", "option", "value"),
    [
        ("learner", "transformer", "layers", 3),
        ("updater", "ridge", "precision", 0.5),
        ("updater", "imaml", "rate", 2.0),
    ],
)
def test_a_kind_brings_its_own_options(section, kind, option, value):
    arguments = [f"--{section}.{option}", str(value), f"--{section}.kind", kind]
    _, base = starting_config("train", arguments)
    chosen = getattr(parse(TrainArguments, "train", arguments, TrainArguments(config=base)).config, section)
    assert (chosen.kind, getattr(chosen, option)) == (kind, value)


def test_a_kind_may_need_another_option_than_the_file_has(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"updater": {"order": "first"}}))
    arguments = ["--config", str(tmp_path / "a.json"), "--updater.kind", "imaml", "--updater.order", "second"]
    _, base = starting_config("train", arguments)
    chosen = parse(TrainArguments, "train", arguments, TrainArguments(config=base)).config.updater
    assert (chosen.kind, chosen.order) == ("imaml", "second")


def test_the_config_of_a_run_can_be_given_again():
    _, config = starting_config("train", ["--config", str(trained_run() / "config.json")])
    assert config == open_run(trained_run()).config


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_config_file(tmp_path, name):
    path = tmp_path / f"{name}.json"
    path.write_text(to_json(preset(name)))
    assert starting_config("train", ["--config", str(path)]) == (name, preset(name))


def test_a_protocol_fixes_the_episodes():
    name, config = starting_evaluation(["--protocol", "recbole-metarec", "--preset", "movielens-1m"])
    assert name == "recbole-metarec"
    assert (config.episodes.min_ratings, config.episodes.max_ratings, config.episodes.query) == (13, 100, 10)
    assert config.train == preset("movielens-1m").train


def test_free_folders_are_counted_up(tmp_path):
    assert free_folder("x", tmp_path) == tmp_path / "x-1"
    (tmp_path / "x-1").mkdir()
    (tmp_path / "x-2").write_text("")
    assert free_folder("x", tmp_path) == tmp_path / "x-3"
