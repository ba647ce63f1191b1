"""What is wrong with a config for its data is said before anything is encoded."""

import dataclasses

import pytest
from training import small_assembly, small_config

from metarec_jax import assembly
from metarec_jax.assembly import assemble, check_adapted
from metarec_jax.config import UpdaterConfig, preset
from metarec_jax.errors import MetarecError

UNFIT = {
    "a pattern that matches nothing": (
        {"adapted": ("output/.*", "hiden/.*")},
        {},
        r"updater\.adapted: 'hiden/\.\*' matches no parameter; there are hidden/bias, ",
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
def test_patterns_that_do_not_fit_are_refused(monkeypatch, updater, learner, message):
    def embed(*_):
        raise AssertionError("it was encoded first")

    monkeypatch.setattr(assembly, "embed", embed)
    with pytest.raises(MetarecError, match=message):
        assemble(config_of(updater, learner))


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
    check_adapted(config_of(updater, learner), small_assembly(small_config()).catalogue)
