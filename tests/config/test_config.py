"""Configs survive JSON, and refuse what is impossible in words that name the option, the value and the remedy."""

import dataclasses
import json
import typing
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.json_io import to_json
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import PRESETS, Config, from_json, preset
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.learner.recurrent import RecurrentConfig
from metarec_jax.learner.transformer import TransformerConfig
from metarec_jax.meta.updaters.implicit import ImplicitConfig
from metarec_jax.meta.updaters.ridge import RidgeConfig

OTHER = Config(
    data=DataConfig(source="table", path="a.csv", columns=Columns(user="who", rating=""), kind="click", download=False),
    episodes=EpisodeConfig(min_ratings=5, max_ratings=0, query=2, buckets=(3, 7), order="time", draws=4),
    encoder=EncoderConfig(path="here", pooling="cls", max_length=3),
    learner=RecurrentConfig(layers=2, hidden=1, head="click", prior=False, user_side="none", dropout=0.5),
    updater=UpdaterConfig(steps=0, rate=1e-3, learn_rate="no", order="first", adapted=("output/.*", "prior/.*")),
    train=TrainConfig(epochs=1, weight_decay=0.0, patience=0, devices=3),
    seed=2**31 - 1,
)


@pytest.mark.parametrize("config", [*PRESETS.values(), OTHER], ids=[*PRESETS, "other"])
def test_a_config_survives_json(config):
    text = to_json(config)
    assert from_json(text, where="config.json") == config
    assert from_json(text, where="config.json", base=OTHER) == config
    assert isinstance(json.loads(text), dict)


def test_every_option_is_in_the_json():
    def names(of):
        hints = typing.get_type_hints(of)
        found = {field.name: hints[field.name] for field in dataclasses.fields(of)}
        return {n: names(hint) if dataclasses.is_dataclass(hint) else None for n, hint in found.items()}

    def keys(tree):
        return {name: keys(value) for name, value in tree.items()} if isinstance(tree, dict) else None

    assert keys(json.loads(to_json(Config()))) == names(Config)


def test_what_a_file_leaves_out_comes_from_the_base():
    found = from_json('{"train": {"epochs": 3}, "updater": {"rate": 1}}', where="x", base=PRESETS["movielens-1m"])
    assert found.train == dataclasses.replace(PRESETS["movielens-1m"].train, epochs=3)
    assert found.data.source == "movielens-1m"
    assert found.updater.rate == 1.0
    assert isinstance(found.updater.rate, float)
    assert from_json("{}", where="x") == Config()


def test_the_automatic_head_fits_clicks_and_ratings():
    for kind in ("rating", "click"):
        assert Config(data=DataConfig(kind=kind)).learner.head == "auto"


def test_without_factors_no_correction_of_them_is_trained():
    config = preset("movielens-100k")
    assert config.trains_factors
    assert not dataclasses.replace(config, factors=dataclasses.replace(config.factors, rank=0)).trains_factors
    assert not dataclasses.replace(config, learner=dataclasses.replace(config.learner, prior=False)).trains_factors


def test_presets_by_name():
    assert preset("synthetic") is PRESETS["synthetic"]
    with pytest.raises(
        MetarecError, match=r"no preset is called 'movielens'; there are movielens-100k, movielens-1m, "
    ):
        preset("movielens")


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "values", "names"),
    [
        (DataConfig, {"source": "table"}, ["data.source 'table'", "--data.path"]),
        (EpisodeConfig, {"query": 0}, ["episodes.query is 0", "at least 1"]),
        (EpisodeConfig, {"query": 13}, ["min_ratings is 13", "query is 13", "larger"]),
        (EpisodeConfig, {"max_ratings": 12}, ["max_ratings is 12", "min_ratings 13", "0 means no limit"]),
        (EpisodeConfig, {"buckets": ()}, ["episodes.buckets is ()", "ascending"]),
        (EpisodeConfig, {"buckets": (32, 16, 90)}, ["episodes.buckets is (32, 16, 90)", "ascending"]),
        (EpisodeConfig, {"buckets": (16, 16, 90)}, ["episodes.buckets is (16, 16, 90)", "ascending"]),
        (EpisodeConfig, {"buckets": (0, 90)}, ["episodes.buckets is (0, 90)", "at least 1"]),
        (EpisodeConfig, {"draws": -1}, ["episodes.draws is -1", "0 "]),
        (EpisodeConfig, {"validation": 0.0}, ["episodes.validation is 0.0", "between 0 and 1"]),
        (EpisodeConfig, {"validation": NAN}, ["episodes.validation is nan", "between 0 and 1"]),
        (EpisodeConfig, {"test": 1.0}, ["episodes.test is 1.0", "between 0 and 1"]),
        (EpisodeConfig, {"validation": 0.5, "test": 0.5}, ["validation 0.5", "test 0.5", "no user to train on"]),
        (EncoderConfig, {"max_length": 2}, ["encoder.max_length is 2", "at least 3"]),
        (LearnerConfig, {"hidden": 0}, ["learner.hidden is 0", "at least 1"]),
        *((TransformerConfig, {n: 0}, [f"learner.{n} is 0", "at least 1"]) for n in ("layers", "width")),
        (LearnerConfig, {"context": -1}, ["learner.context is -1", "0 (none)"]),
        (LearnerConfig, {"dropout": 1.0}, ["learner.dropout is 1.0", "below 1"]),
        (LearnerConfig, {"dropout": -0.1}, ["learner.dropout is -0.1", "at least 0"]),
        (LearnerConfig, {"dropout": NAN}, ["learner.dropout is nan", "at least 0"]),
        (FactorsConfig, {"dropout": 1.0}, ["factors.dropout is 1.0", "below 1"]),
        *(
            (FactorsConfig, {"rate": rate}, [f"factors.rate is {rate}", "above 0"])
            for rate in (0.0, -1.0, NAN, INFINITE)
        ),
        *((FactorsConfig, {"mixing": x}, [f"factors.mixing is {x}", "at most 1"]) for x in (0.0, -0.5, 1.01, NAN)),
        (UpdaterConfig, {"steps": -1}, ["updater.steps is -1", "0 or more"]),
        *(
            (kind, {name: value}, [f"updater.{name} is {value}", "a finite number above 0"])
            for kind, name in ((UpdaterConfig, "rate"), (RidgeConfig, "precision"), (ImplicitConfig, "precision"))
            for value in (0.0, -1.0, NAN, INFINITE)
        ),
        (UpdaterConfig, {"adapted": ()}, ["updater.adapted is ()", "at least one pattern", "--updater.steps 0"]),
        *(
            (
                UpdaterConfig,
                {"kind": kind, "order": order},
                [f"updater.order is {order!r}", f"updater.kind {kind!r}", "--updater.order second"],
            )
            for kind in ("imaml", "ridge")
            for order in ("first", "reptile")
        ),
        *(
            (
                UpdaterConfig,
                {"kind": kind, "order": "reptile"},
                ["updater.order is 'reptile'", f"updater.kind {kind!r}", "--updater.order second or first"],
            )
            for kind in ("meta-sgd", "learned")
        ),
        (TrainConfig, {"epochs": 0}, ["train.epochs is 0", "at least 1"]),
        (TrainConfig, {"users_per_step": 0}, ["train.users_per_step is 0", "at least 1"]),
        (TrainConfig, {"rate": -1.0}, ["train.rate is -1.0", "above 0"]),
        (TrainConfig, {"rate": INFINITE}, ["train.rate is inf", "finite"]),
        (TrainConfig, {"weight_decay": -1.0}, ["train.weight_decay is -1.0", "at least 0"]),
        (TrainConfig, {"weight_decay": NAN}, ["train.weight_decay is nan", "finite"]),
        (TrainConfig, {"patience": -1}, ["train.patience is -1", "0 or more"]),
        (TrainConfig, {"devices": -1}, ["train.devices is -1", "0 (all)"]),
        (TrainConfig, {"users_per_device": -1}, ["train.users_per_device is -1", "0 (as many as fit)"]),
        (Config, {"seed": -1}, ["seed is -1", "between 0"]),
        (Config, {"seed": -(10**5000)}, ["seed is an integer of thousands of digits", "between 0"]),
        (Config, {"seed": 2**31}, [f"seed is {2**31}", f"{2**31 - 1}"]),
        (Config, {"learner": LearnerConfig(head="click")}, ["learner.head is 'click'", "data.kind is 'rating'"]),
        (
            Config,
            {"data": DataConfig(kind="click"), "learner": LearnerConfig(head="classes")},
            ["learner.head is 'classes'", "data.kind is 'click'", "the head 'click'"],
        ),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_an_impossible_value_is_refused_by_name(make, values, names):
    with pytest.raises(MetarecError) as error:
        make(**values)
    assert_says(str(error.value), *names)


SECTIONS = {
    "data": DataConfig,
    "episodes": EpisodeConfig,
    "encoder": EncoderConfig,
    "learner": LearnerConfig,
    "updater": UpdaterConfig,
}
CHOICES = [
    (section, name, typing.get_args(hint))
    for section, kind in SECTIONS.items()
    for name, hint in typing.get_type_hints(kind).items()
    if typing.get_origin(hint) is typing.Literal
]


@pytest.fixture
def unchecked():
    """As for a user: without the type checker of the tests, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("section", "name", "choices"), CHOICES, ids=[f"{s}.{n}" for s, n, _ in CHOICES])
def test_an_unknown_choice_is_refused_with_those_there_are(section, name, choices):
    """From Python, where no parser has looked at it before, and from a file."""
    with pytest.raises(MetarecError) as error:
        SECTIONS[section](**{name: "sgd"})
    known = ", ".join(map(repr, choices))
    assert str(error.value) == f"{section}.{name} is 'sgd'; it must be one of {known}"
    with pytest.raises(MetarecError) as error:
        from_json(json.dumps({section: {name: "sgd"}}), where="mine.json")
    assert str(error.value) == f"mine.json: {section}.{name} is 'sgd'; it must be one of {known}"


def test_the_choices_of_an_updater_are_among_them():
    assert {name for section, name, _ in CHOICES if section == "updater"} == {"kind", "learn_rate", "order"}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("section", "options", "names"),
    [
        ("updater", {"adapted": "output/.*"}, ["updater.adapted is 'output/.*'", "a list"]),
        ("updater", {"adapted": ()}, ["updater.adapted is ()", "at least one pattern"]),
        ("train", {"epochs": "5"}, ["train.epochs is '5'", "of type int"]),
        ("train", {"epochs": True}, ["train.epochs is True", "of type int"]),
        ("train", {"rate": None}, ["train.rate is None", "of type float"]),
        ("factors", {"rank": 2.5}, ["factors.rank is 2.5", "of type int"]),
        ("data", {"path": 7}, ["data.path is 7", "of type str"]),
        ("data", {"columns": {"user": "who"}}, ["data.columns is of type dict", "a Columns", "from_json"]),
        ("data", {"download": "no"}, ["data.download is 'no'", "of type bool"]),
        ("episodes", {"buckets": (16, "32")}, ["episodes.buckets[1] is '32'", "of type int"]),
    ],
)
def test_options_of_other_types_are_refused_by_name(section, options, names):
    with pytest.raises(MetarecError) as error:
        {"train": TrainConfig, "factors": FactorsConfig, **SECTIONS}[section](**options)
    assert_says(str(error.value), *names)


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_paths_and_lists_are_options():
    """A config is the same whatever the form in which an option was given."""
    data = DataConfig(source="table", path=Path("a") / "b.csv")
    train = TrainConfig(epochs=np.int64(3), rate=np.float32(0.5), users_per_step=np.int32(8))
    assert (data.path, train) == ("a/b.csv", TrainConfig(epochs=3, rate=0.5, users_per_step=8))
    assert [type(value) for value in (train.epochs, train.rate, train.users_per_step)] == [int, float, int]
    assert UpdaterConfig(adapted=["output/.*"]) == UpdaterConfig(adapted=("output/.*",))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", ["run/config.json, line 1", "not valid JSON"]),
        ('{\n"seed": 1,\n}', ["run/config.json, line", "not valid JSON"]),
        ("", ["run/config.json, line 1", "not valid JSON"]),
        ("[]", ["run/config.json: the file must be an object", "[]"]),
        ('{"train": 3}', ["run/config.json: train must be an object", "3"]),
        ('{"trian": {}}', ["no option 'trian'", "did you mean 'train'?"]),
        ('{"train": {"epoch": 3}}', ["no option 'train.epoch'", "did you mean 'epochs'?"]),
        ('{"data": {"columns": {"users": "u"}}}', ["no option 'data.columns.users'", "did you mean 'user'?"]),
        ('{"train": {"zzz": 3}}', ["no option 'train.zzz'", "known are epochs, users_per_step"]),
        ('{"seed": "7"}', ["seed is '7'", "of type int"]),
        ('{"seed": true}', ["seed is True", "of type int"]),
        ('{"seed": 1.0}', ["seed is 1.0", "of type int"]),
        ('{"seed": null}', ["seed is None", "of type int"]),
        ('{"train": {"rate": "fast"}}', ["train.rate is 'fast'", "of type float"]),
        ('{"train": {"rate": false}}', ["train.rate is False", "of type float"]),
        ('{"data": {"download": 1}}', ["data.download is 1", "of type bool"]),
        ('{"data": {"path": 1}}', ["data.path is 1", "of type str"]),
        ('{"learner": {"kind": "lstm"}}', ["learner.kind is 'lstm'", "'mlp', 'transformer', 'recurrent'"]),
        ('{"learner": {"head": "softmax"}}', ["learner.head is 'softmax'", "'rating', 'classes', 'ordinal', 'click'"]),
        ('{"learner": {"head": ["click"]}}', ["learner.head is ['click']", "one of"]),
        ('{"episodes": {"buckets": 90}}', ["episodes.buckets is 90", "a list"]),
        ('{"episodes": {"buckets": [16, "90"]}}', ["episodes.buckets[1] is '90'", "of type int"]),
        ('{"updater": {"adapted": "output/.*"}}', ["updater.adapted is 'output/.*'", "a list"]),
        ('{"train": {"epochs": 0}}', ["train.epochs is 0", "at least 1"]),
        ('{"learner": {"head": "click"}}', ["learner.head is 'click'", "data.kind is 'rating'"]),
        ('{"updater": {"rate": NaN}}', ["NaN is no JSON", "finite"]),
        ('{"updater": {"kind": "ridge", "precision": -Infinity}}', ["-Infinity is no JSON", "finite"]),
        ('{"updater": {"kind": 1}}', ["updater.kind is 1", "'gradient', 'momentum', 'meta-sgd', 'adam'"]),
        ('{"updater": {"kinds": "adam"}}', ["no option 'updater.kinds'", "did you mean 'kind'?"]),
        ('{"updater": {"adapted": []}}', ["updater.adapted is ()", "at least one pattern"]),
        ('{"updater": {"adapted": [3]}}', ["updater.adapted[0] is 3", "of type str"]),
        ('{"updater": {"steps": 2.0}}', ["updater.steps is 2.0", "of type int"]),
        ('{"learner": {"prior": 1}}', ["learner.prior is 1", "of type bool"]),
        ('{"updater": {"kind": "ridge", "order": "first"}}', ["updater.order is 'first'", "'ridge'"]),
        ('{"learner": {"context": -1}}', ["learner.context is -1", "0 (none)"]),
        ('{"learner": {"context": 2.5}}', ["learner.context is 2.5", "of type int"]),
        ('{"train": {"users_per_device": -1}}', ["train.users_per_device is -1", "as many as fit"]),
    ],
)
def test_a_mistake_in_a_file_is_refused_with_the_file_and_the_option(text, names):
    with pytest.raises(MetarecError) as error:
        from_json(text, where="run/config.json")
    assert str(error.value).startswith("run/config.json")
    assert str(error.value).count("run/config.json") == 1
    assert_says(str(error.value), *names)
