"""Users that the service shows to anybody are those of public data sets."""

import dataclasses

import pytest

from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.run import Config, preset
from metarec_jax.serving.demo_users import people_of


@pytest.mark.parametrize("source", ["auto", "movielens-100k", "table"])
def test_users_of_a_table_are_never_shown(tmp_path, source):
    path = tmp_path / "private.csv"
    rows = "".join(f"{u},{i},{(u + i) % 5 + 1}\n" for u in range(60) for i in range(15))
    path.write_text(f"user_id,item_id,rating\n{rows}")
    assert people_of(Config(data=DataConfig(source=source, path=str(path)), episodes=EpisodeConfig())) == {}


def test_users_of_public_data_are_shown():
    assert people_of(preset("synthetic"))
    config = Config()
    assert config.data.source == "auto"
    named = dataclasses.replace(config, data=DataConfig(source="movielens-100k"))
    assert people_of(config) == people_of(named) != {}
