"""Settings of JAX that Python callers have made: the library answers, or refuses them with one message."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import assert_says
from trained import trained_run

PROGRAM = """
import sys, jax
import metarec_jax as mr
from metarec_jax import encoder
name, value, folder, run = sys.argv[1:]
if name:
    jax.config.update(name, {"True": True}.get(value, value))
changes = '{"train": {"epochs": 1, "users_per_step": 160}, "updater": {"steps": 1}, "encoder": {"path": "random"}}'
config = mr.from_json(changes, where="here", base=mr.preset("synthetic"))
for call in (
    lambda: mr.meta_train(config, folder),
    lambda: mr.Recommender.load(run),
    lambda: encoder.load("random"),
):
    try:
        call()
    except mr.MetarecError as error:
        print("refused:", error)
    else:
        print("done")
"""


def answers(folder, setting=("", ""), **environment: str) -> list[str]:
    """What training, a recommender and an encoder answer in a process with these settings."""
    command = [sys.executable, "-c", PROGRAM, *setting, str(folder / "new"), str(trained_run())]
    variables = {**os.environ, "METAREC_CACHE": str(folder / "cache"), "JAX_PLATFORMS": "cpu", **environment}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("platform", ["cuda", "tpu", "nope"])
def test_devices_that_are_not_there_are_refused_by_each_call(platform, tmp_path):
    said = answers(tmp_path, JAX_PLATFORMS=platform)
    assert len(said) == 3
    for line in said:
        assert line.startswith("refused:")
        assert_says(line, f"JAX_PLATFORMS={platform!r}", "metarec_jax[cuda]", "metarec_jax[tpu]", "JAX_PLATFORMS=cpu")
    assert not (tmp_path / "new" / "config.json").exists()


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        (("jax_enable_x64", "True"), ["JAX_ENABLE_X64", "float32", "jax.config.update('jax_enable_x64', False)"]),
        pytest.param(
            ("jax_numpy_dtype_promotion", "strict"),
            ["jax_numpy_dtype_promotion", "'strict'", "'standard'"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_types_of_numbers_are_refused(setting, names, tmp_path):
    training, loading, encoding = answers(tmp_path, setting)
    for line in (training, loading):
        assert line.startswith("refused:")
        assert_says(line, *names)
    assert encoding == "done"
    assert not (tmp_path / "new" / "config.json").exists()


@pytest.mark.slow
def test_rank_promotion_may_be_an_error(tmp_path):
    assert answers(tmp_path, ("jax_numpy_rank_promotion", "raise")) == ["done"] * 3
