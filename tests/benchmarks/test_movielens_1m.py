"""The made-up folder in the layout of MovieLens-1M that protocol A is tried on at full size."""

import numpy as np

from benchmarks import movielens_1m
from metarec_jax.config.data import DataConfig
from metarec_jax.data import load


def test_what_is_written_is_read_with_as_many_of_everything(tmp_path):
    folder = movielens_1m.write(tmp_path / "ml-1m", users=40, films=70, rated=60, total=1300)
    data = load(DataConfig(source="movielens-1m", path=str(folder)), seed=0)
    assert data.source.startswith("MovieLens-1M")
    assert (len(data.users), len(data.items)) == (40, 70)
    assert data.item.max() < 60
    count = np.bincount(data.user)
    assert count.min() >= movielens_1m.LEAST
    assert abs(len(data.user) - 1300) <= 40
    assert set(data.rating.tolist()) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    years = np.array([int(year) for year in data.items.details["year"]])
    assert years.min() >= 1919
    assert years.max() == 2000


def test_equal_arguments_give_equal_files(tmp_path):
    first, second = (movielens_1m.write(tmp_path / name, users=3, films=40, rated=30, total=70) for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
