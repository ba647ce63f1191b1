"""What is wrong with a config for its data is said before anything is encoded."""

import dataclasses

import jax
import pytest
from training import Watch, small_config, small_experiment

from metarec_jax.config.data import DataConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config, preset
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET
from metarec_jax.encoder import encode_table, random_encoder
from metarec_jax.train.build import build
from metarec_jax.train.checks import check_adapted, check_encoder
from metarec_jax.train.embed import embed

UNFIT = {
    "a pattern that matches nothing": (
        {"adapted": ("output/.*", "hiden/.*")},
        {},
        r"updater\.adapted: 'hiden/\.\*' matches no parameter; there are hidden/bias, ",
    ),
    "parameters of the encoder": (
        {"adapted": ("encoder/.*",)},
        {},
        r"updater\.adapted: 'encoder/\.\*' matches no parameter; there are .*\. Parameters of the encoder adapt "
        r"through Python only, by patterns such as 'encoder/\.\*bias' .*docs/adapting-the-encoder\.md",
    ),
    "no context to adapt": ({"adapted": ("context/.*",)}, {}, r"updater\.adapted: 'context/\.\*' matches no parameter"),
    "ridge over more than a layer": ({"kind": "ridge"}, {}, r"'ridge' solves for one linear layer"),
    "context parameters that nothing adapts": (
        {},
        {"context": 3},
        r"learner\.context is 3, but no pattern of updater\.adapted .'hidden/\.\*', 'output/\.\*'. matches context/",
    ),
}


def config_of(updater, learner):
    config = preset("synthetic")
    return dataclasses.replace(
        config, updater=UpdaterConfig(**updater), learner=dataclasses.replace(config.learner, **learner)
    )


@pytest.mark.parametrize(("updater", "learner", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_patterns_that_do_not_fit_are_refused(updater, learner, message):
    """Before anything is encoded, which would be shown as a bar."""
    watch = Watch()
    with pytest.raises(MetarecError, match=message):
        build(config_of(updater, learner), reporter=watch)
    assert watch.bars == []


@pytest.mark.parametrize(
    ("updater", "learner"),
    [
        ({"adapted": ("output/.*",), "kind": "ridge"}, {}),
        ({"adapted": ("context/.*",)}, {"context": 3}),
        ({"adapted": (".*",)}, {"context": 3}),
        ({"steps": 0}, {"context": 3}),  # a twin
    ],
)
def test_patterns_that_fit_are_not(updater, learner):
    check_adapted(config_of(updater, {"head": "rating", **learner}), small_experiment(small_config()).catalogue)


@pytest.mark.parametrize(
    ("platform", "choice", "message"),
    [
        ("cpu", {"attention": "fused"}, r"encoder\.attention is 'fused', but this is a CPU"),
        (
            "cpu",
            {"compute": "bfloat16"},
            r"encoder\.compute is 'bfloat16'.*a CPU: use --encoder\.compute float32",
        ),
        ("gpu", {"attention": "fused"}, r"encoder\.compute is float32.*use --encoder\.compute bfloat16"),
    ],
)
@pytest.mark.parametrize("train", ["no", "all"])
def test_what_an_encoder_cannot_do_here_is_refused(platform, choice, message, train, monkeypatch):
    """Whether it is trained or not."""
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    with pytest.raises(MetarecError, match=message):
        check_encoder(EncoderConfig(**{"path": "random", "train": train} | choice), random_encoder())


@pytest.mark.parametrize(
    ("platform", "choice"),
    [
        ("gpu", {"attention": "fused", "compute": "bfloat16"}),
        ("tpu", {"attention": "fused"}),
    ],
)
def test_what_it_can_do_is_not(platform, choice, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    check_encoder(EncoderConfig(path="random", **choice), random_encoder())


def test_a_frozen_encoder_computes_as_the_config_says(tmp_path):
    encoder, texts = random_encoder(), ["a film", "another film"]
    config = Config(
        data=DataConfig(cache=str(tmp_path)),
        encoder=EncoderConfig(path="random", compute="bfloat16"),
    )
    found = embed(encoder, config, texts, QUIET, "encoding")
    assert (found == encode_table(encoder, texts, dtype="bfloat16")).all()
    assert (found != encode_table(encoder, texts)).any()
