"""Files as they come from the pages of shops and newspapers: each is read, or the message says what to do."""

import gzip
import json
import zipfile

import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

ROWS = [(u, i, (u + i) % 5 + 1, 1_400_000_000 + i) for u in range(1, 21) for i in range(1, 13)]
TEXT = "user_id,item_id,rating,timestamp\n" + "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in ROWS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("ratings_small.csv", TEXT)
        archive.writestr("items.csv", "item_id,title\n" + "".join(f"{i},Lamp {i}\n" for i in range(1, 13)))
    named = [
        {"user_id": f"U{u}", "parent_asin": f"B{i}", "rating": float(r), "timestamp": t * 1000, "text": "ok"}
        for u, i, r, t in ROWS
    ]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))
    clicks = [f"{n}\tU{u}\t11/15/2019 8:{n % 60:02d}:12 AM\tN1 N2\tN{i}-1\n" for n, (u, i, _, _) in enumerate(ROWS)]
    (tmp_path / "behaviors.tsv").write_text("".join(clicks))
    (tmp_path / "u.data").write_text("".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in ROWS))
    (tmp_path / "pipe.txt").write_text(TEXT.replace(",", "|"))
    return tmp_path


@pytest.mark.parametrize("source", ["auto", "table"])
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("ratings.csv.gz", Columns()),
        ("archive.zip/ratings_small.csv", Columns()),
        ("reviews.jsonl", Columns(item="parent_asin")),
        ("u.data", Columns()),
        ("pipe.txt", Columns()),
    ],
)
def test_these_are_read(folder, source, name, columns):
    data = load(DataConfig(source=source, path=str(folder / name), columns=columns))
    assert (len(data), len(data.users), len(data.items)) == (240, 20, 12)
    assert data.scale.levels == (1.0, 2.0, 3.0, 4.0, 5.0)


@pytest.mark.parametrize("source", ["auto", "table"])
@pytest.mark.parametrize(
    ("name", "columns", "says"),
    [
        ("archive.zip", Columns(), ["ratings_small.csv", "items.csv", "archive.zip/"]),
        ("reviews.jsonl", Columns(), ["no column 'item_id'", "parent_asin", "--data.columns.item"]),
        ("behaviors.tsv", Columns(), ["no header line and 5 columns", "--data.columns.user 1"]),
        ("behaviors.tsv", Columns("2", "5", "", "3"), ["line 1", "'11/15/2019 8:00:12 AM'", "ISO 8601"]),
    ],
)
def test_of_these_the_message_says_what_to_do(folder, source, name, columns, says):
    kind = "click" if columns.rating == "" else "rating"
    with pytest.raises(MetarecError) as caught:
        load(DataConfig(source=source, path=str(folder / name), columns=columns, kind=kind))
    assert_says(str(caught.value), str(folder / name), *says)
