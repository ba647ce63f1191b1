"""Times as they come: ISO 8601, milliseconds, fractions, dates of Parquet; a date of a split is in their unit."""

import datetime

import pyarrow as pa
import pyarrow.parquet
import pytest

from metarec_jax.config.data import DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.protocols.time_split import divide

ROWS = [(u, i, (u + i) % 5 + 1, 1_400_000_000 + 86_400 * i + u) for u in range(30) for i in range(1, 31)]
NAMES = ("user_id", "item_id", "rating", "timestamp")
MOMENTS = [datetime.datetime.fromtimestamp(row[3], datetime.UTC) for row in ROWS]


def csv(path, form):
    path.write_text(",".join(NAMES) + "\n" + "".join(f"{u},{i},{r},{form(t)}\n" for u, i, r, t in ROWS))
    return load(DataConfig(path=str(path)))


def parquet(path, times):
    columns = [*([row[n] for row in ROWS] for n in (0, 1, 2)), times]
    pa.parquet.write_table(pa.table(dict(zip(NAMES, columns))), path)
    return load(DataConfig(path=str(path)))


def as_text(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat()


def test_all_ways_to_write_a_time_give_the_same_split(tmp_path):
    read = [
        csv(tmp_path / "s.csv", lambda t: t),
        csv(tmp_path / "ms.csv", lambda t: t * 1000 + 123),
        csv(tmp_path / "iso.csv", as_text),
        csv(tmp_path / "frac.csv", lambda t: t + 0.25),
        parquet(tmp_path / "ok.parquet", pa.array(MOMENTS)),
        parquet(tmp_path / "iso.parquet", pa.array([moment.isoformat() for moment in MOMENTS])),
    ]
    split = SplitConfig(kind="time", date="2014-05-30")
    found = [divide(data, split, EpisodeConfig(query=3, min_ratings=5), 0) for data in read]
    assert {len(division.train) for division in found} == {len(found[0].train)}
    assert all(division.description == found[0].description for division in found[4:])
    assert all("2014-05-30 00:00" in division.description for division in found)
    assert [data.time_unit for data in read] == ["s", "ms", "s", "ms", "s", "s"]


def test_a_row_without_a_time_is_named(tmp_path):
    with pytest.raises(MetarecError, match=r"null\.parquet, row 900: the time \(timestamp\) is empty"):
        parquet(tmp_path / "null.parquet", pa.array([*MOMENTS[:-1], None]))


def test_the_order_within_a_second_is_kept(tmp_path):
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    times = [start + datetime.timedelta(milliseconds=10 * (40 - row[1])) for row in ROWS]
    data = parquet(tmp_path / "sub.parquet", pa.array(times, pa.timestamp("ms", "UTC")))
    assert [data.items.ids[i] for i in data.item[data.user == 0]] == [str(n) for n in range(30, 0, -1)]
