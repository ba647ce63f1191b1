"""Ids: whole numbers however they are written, and never one that stands for a missing value."""

import pytest
from helpers import assert_says

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load


def read(tmp_path, ids, separator=","):
    path = tmp_path / "r.csv"
    rows = "".join(f"{name}{separator}i{n}{separator}{n % 5}\n" for n, name in enumerate(ids))
    path.write_text(f"user_id,item_id,rating\n{rows}".replace(",", separator), encoding="utf-8")
    return load(DataConfig(path=str(path)))


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        (["1.0", "2.0", "10.0"], ("1", "2", "10")),
        (["1", "2.0", "1.00"], ("1", "2")),
        (["99999", "1e+05", "100001"], ("99999", "100000", "100001")),
        (["1e5", "007", "8.0"], ("007", "8", "100000")),
        (["-1.0", "-1", "3"], ("3", "-1")),
        (["1.5", "2.0"], ("1.5", "2.0")),
        (["1.0", "x"], ("1.0", "x")),
        (["v1.0", "v2.0"], ("v1.0", "v2.0")),
        (["1e99", "2"], ("2", "1e99")),
        (["12345678901234567890.0", "2.0"], ("12345678901234567890.0", "2.0")),
        (["٣", "4.0"], ("4.0", "٣")),
        (["NA", "x"], ("NA", "x")),
        (["Nancy", "nano", "none at all"], ("Nancy", "nano", "none at all")),
    ],
)
def test_whole_numbers_written_as_floats(tmp_path, ids, wanted):
    assert read(tmp_path, ids).users.ids == wanted


@pytest.mark.parametrize("missing", ["nan", "NaN", "None", "null", "NULL", "<NA>", "NaT", "\\N"])
@pytest.mark.parametrize("others", [["1", "2"], ["1.0", "2.0"], ["ann", "bob"]], ids=["ints", "floats", "words"])
def test_a_missing_id_is_refused_by_its_line(tmp_path, missing, others):
    with pytest.raises(MetarecError) as caught:
        read(tmp_path, [*others, missing, *others])
    assert_says(str(caught.value), "r.csv, line 4", "the user (user_id)", repr(missing), "remove the row")


@pytest.mark.parametrize("missing", ["", "  ", "NA", "N/A", "#N/A", "?"])
def test_among_numbers_more_words_stand_for_a_missing_value(tmp_path, missing):
    with pytest.raises(MetarecError) as caught:
        read(tmp_path, ["1.0", "2.0", missing])
    assert_says(str(caught.value), "r.csv, line 4", "the user (user_id) is")
