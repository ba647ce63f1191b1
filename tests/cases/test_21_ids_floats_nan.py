"""What pandas and polars make of ids when some are missing: floats, NaN and the word nan; never a user called nan."""

import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import assert_says

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

ROWS = [(u, i, (u + i) % 5 + 1, i) for u in range(1, 21) for i in range(1, 13)]
NAMES = ("user_id", "item_id", "rating", "timestamp")


@pytest.fixture
def items(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{i},Lamp {i}\n" for i in range(1, 13)))
    return str(tmp_path / "items.csv")


@pytest.mark.parametrize("with_items", [True, False])
def test_ids_that_became_floats(tmp_path, items, with_items):
    path = tmp_path / "float.csv"
    path.write_text(",".join(NAMES) + "\n" + "".join(f"{u}.0,{i}.0,{r},{t}\n" for u, i, r, t in ROWS))
    data = load(DataConfig(path=str(path), items_path=items if with_items else ""))
    assert data.users.ids == tuple(map(str, range(1, 21)))
    assert data.items.ids == tuple(map(str, range(1, 13)))


@pytest.mark.parametrize("kind", ["null", "NaN", "NaN among large ids"])
def test_missing_ids_of_parquet_are_named_by_their_row(tmp_path, items, kind):
    users = [float(row[0]) * (10**15 if "large" in kind else 1) for row in ROWS]
    users[5] = users[6] = None if kind == "null" else float("nan")
    columns = [users, *([row[n] for row in ROWS] for n in (1, 2, 3))]
    path = tmp_path / "r.parquet"
    pa.parquet.write_table(pa.table(dict(zip(NAMES, columns))), path)
    with pytest.raises(MetarecError) as caught:
        load(DataConfig(path=str(path), items_path=items))
    assert_says(str(caught.value), f"{path}, row 6", "the user (user_id) is empty")


def test_ids_that_lost_digits_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    pa.parquet.write_table(pa.table({"user_id": [1e16 + 2, 3.0], "item_id": [1, 2], "rating": [1, 2]}), path)
    with pytest.raises(MetarecError, match=r"'user_id' holds ids as double, up to 10000000000000002, .*lost digits"):
        load(DataConfig(path=str(path)))


def test_the_word_nan_is_no_user(tmp_path, items):
    path = tmp_path / "words.csv"
    lines = [f"{'nan' if n in (5, 6) else u},{i},{r},{t}\n" for n, (u, i, r, t) in enumerate(ROWS)]
    path.write_text(",".join(NAMES) + "\n" + "".join(lines))
    with pytest.raises(MetarecError) as caught:
        load(DataConfig(path=str(path), items_path=items))
    assert_says(str(caught.value), f"{path}, line 7", "the user (user_id) is 'nan'")
