"""Encoders with rotary positions, split over devices."""

from __future__ import annotations

import pytest
from helpers import assert_close
from rotary_runs import KINDS, config_of, save_all
from test_sharded_encoder import gradient_on

from metarec_jax.train.build import build


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_all(tmp_path_factory.mktemp("encoders"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_shards_is_that_of_one_device(kind, folders):
    experiment = build(config_of(folders[kind], train="all"))
    alone, _ = gradient_on(experiment, 1, 1)
    split, _ = gradient_on(experiment, 8, 2)
    for part, wanted in zip(split, alone, strict=True):
        assert_close(part, wanted)
