"""Times in any unit, as numbers, dates or text: their order is kept, and the date of a split is in their unit."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig, EpisodeConfig, SplitConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.protocols.time_split import date_of, divide

FIRST = 1_400_000_000


def text(tmp_path, times):
    path = tmp_path / "r.csv"
    path.write_text("user_id;item_id;rating;timestamp\n" + "".join(f"a;{n};{n % 5};{t}\n" for n, t in enumerate(times)))
    return load(DataConfig(path=str(path)))


def parquet(tmp_path, times):
    path = tmp_path / "r.parquet"
    count = len(times)
    columns = {"user_id": ["a"] * count, "item_id": list(range(count)), "rating": [n % 5 for n in range(count)]}
    pa.parquet.write_table(pa.table({**columns, "timestamp": times}), path)
    return load(DataConfig(path=str(path)))


def by_item(data):
    return data.time[np.argsort([int(data.items.ids[i]) for i in data.item])].tolist()


@pytest.mark.parametrize(
    ("times", "unit", "wanted"),
    [
        ([FIRST + 1, FIRST], "s", [FIRST + 1, FIRST]),
        ([FIRST * 1000 + 1, FIRST * 1000], "ms", [FIRST * 1000 + 1, FIRST * 1000]),
        ([FIRST * 10**6 + 1, FIRST * 10**6], "us", [FIRST * 10**6 + 1, FIRST * 10**6]),
        ([FIRST * 10**9 + 1, FIRST * 10**9], "ns", [FIRST * 10**9 + 1, FIRST * 10**9]),
        ([f"{FIRST}.25", f"{FIRST}.5", FIRST], "ms", [FIRST * 1000 + 250, FIRST * 1000 + 500, FIRST * 1000]),
        ([f"{FIRST}.000001", FIRST], "us", [FIRST * 10**6 + 1, FIRST * 10**6]),
        ([f"{FIRST}001.5", f"{FIRST}000"], "us", [FIRST * 10**6 + 1500, FIRST * 10**6]),
        (["2014-05-13", "2014-05-14"], "s", [1399939200, 1400025600]),
        (["2014-05-13 16:53:20", "2014-05-13T16:53:21"], "s", [FIRST, FIRST + 1]),
        (["2014-05-13T16:53:20Z", "2014-05-13T18:53:21+02:00"], "s", [FIRST, FIRST + 1]),
        (["2014-05-13 16:53:20 UTC", "2014-05-13 16:53:21"], "s", [FIRST, FIRST + 1]),
        (["2014-05-13 16:53:20.010", "2014-05-13 16:53:20"], "ms", [FIRST * 1000 + 10, FIRST * 1000]),
        (["2014-05-13 16:53:20.000000002"] * 2, "ns", [FIRST * 10**9 + 2] * 2),
        (["1969-12-31 23:59:59.5", "1970-01-01"], "ms", [-500, 0]),
        ([3, 1, 2], "s", [3, 1, 2]),
    ],
)
def test_times_of_a_text_table(tmp_path, times, unit, wanted):
    data = text(tmp_path, times)
    assert (data.time_unit, by_item(data)) == (unit, wanted)


MOMENT = datetime.datetime(2014, 5, 13, 16, 53, 20, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("times", "unit", "wanted"),
    [
        (pa.array([MOMENT] * 2, pa.timestamp("ns", "UTC")), "s", [FIRST] * 2),
        (pa.array([MOMENT] * 2, pa.timestamp("us", "Asia/Tokyo")), "s", [FIRST] * 2),
        (pa.array([FIRST * 1000 + 5, FIRST * 1000], pa.timestamp("ms")), "ms", [FIRST * 1000 + 5, FIRST * 1000]),
        (pa.array([1, 0], pa.timestamp("ns")), "ns", [1, 0]),
        (pa.array([MOMENT.date()] * 2, pa.date32()), "s", [1399939200] * 2),
        (pa.array(["2014-05-13 16:53:20", "2014-05-13 16:53:21"]), "s", [FIRST, FIRST + 1]),
        (pa.array([FIRST + 0.5, FIRST]), "ms", [FIRST * 1000 + 500, FIRST * 1000]),
    ],
)
def test_times_of_parquet(tmp_path, times, unit, wanted):
    data = parquet(tmp_path, times)
    assert (data.time_unit, by_item(data)) == (unit, wanted)


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ([FIRST, ""], ["line 3", "empty", "--data.columns.time ''"]),
        (["2014-05-13 16:53:20", ""], ["line 3", "empty", "--data.columns.time ''"]),
        (["2014-05-13 16:53:20", FIRST], ["line 3", str(FIRST), "ISO 8601"]),
        (["2014-05-13 16:53:20", "2014-13-13 00:00:00"], ["line 3", "2014-13-13", "ISO 8601"]),
        (["11/15/2019 8:00:12 AM", FIRST], ["line 2", "11/15/2019", "ISO 8601", "2019-11-15 08:00:12"]),
        ([FIRST, "1e30"], ["line 3", "1e+30", "too large"]),
        ([FIRST, "inf"], ["line 3", "'inf'"]),
        ([FIRST, "noon"], ["line 3", "'noon'", "seconds since 1970"]),
    ],
)
def test_a_time_that_is_none_is_named(tmp_path, times, says):
    with pytest.raises(MetarecError) as caught:
        text(tmp_path, times)
    assert_says(str(caught.value), "r.csv", "(timestamp)", *says)


def test_the_order_within_a_second_is_kept(tmp_path):
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    step = datetime.timedelta(milliseconds=10)
    data = parquet(tmp_path, pa.array([start + (9 - n) * step for n in range(10)], pa.timestamp("ms", "UTC")))
    assert [data.items.ids[i] for i in data.item] == [str(n) for n in range(9, -1, -1)]


SHOWN = {
    "s": [FIRST + n * 86400 for n in range(40)],
    "ms": [(FIRST + n * 86400) * 1000 + 7 for n in range(40)],
    "us": [(FIRST + n * 86400) * 10**6 + 7 for n in range(40)],
    "ns": [(FIRST + n * 86400) * 10**9 + 7 for n in range(40)],
}


@pytest.mark.parametrize("unit", SHOWN)
def test_the_date_of_a_split_is_compared_in_the_unit_of_the_data(tmp_path, unit):
    data = text(tmp_path, SHOWN[unit])
    assert data.time_unit == unit
    assert (data.time < date_of(data, "2014-05-23")).sum() == 10
    assert (data.time < date_of(data, "2014-05-23T16:53:20+00:00")).sum() == 10
    assert date_of(data, str(SHOWN[unit][3])) == SHOWN[unit][3]
    with pytest.raises(MetarecError, match=r"2030-01-01 00:00 .* between 2014-05-13 16:53 .* and 2014-06-21 16:53"):
        divide(data, SplitConfig(kind="time", date="2030-01-01"), EpisodeConfig(), 0)


def test_a_time_column_that_is_named_must_be_there(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("user_id,item_id,rating,when\na,x,4,1\nb,x,2,2\n")
    with pytest.raises(MetarecError, match=r"no column 'date' .*--data\.columns\.time"):
        load(DataConfig(path=str(path), columns=Columns(time="date")))
