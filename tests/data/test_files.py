"""What a file of data may be: compressed, in a zip, JSON lines; never a pipe, a bomb, or something that is no table."""

import bz2
import gzip
import io
import json
import os
import pickle
import socket
import sqlite3
import tarfile
import time
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.sources.files import File
from metarec_jax.data.sources.json_lines import JsonLines

CSV = b"user_id,item_id,rating,timestamp\na,x,4,20\nb,y,1,10\na,y,2,30\n"
WANTED = {("a", "x", 4.0, 20), ("b", "y", 1.0, 10), ("a", "y", 2.0, 30)}


def read(path, **options):
    return load(DataConfig(path=str(path), **options))


def refusal(path, **options):
    with pytest.raises(MetarecError) as caught:
        read(path, **options)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def rows_of(data):
    return {
        (data.users.ids[u], data.items.ids[i], float(r), int(t))
        for u, i, r, t in zip(data.user, data.item, data.scale.decimal(data.rating), data.time)
    }


def zipped(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return path


PACKED = {
    "gzip": gzip.compress,
    "two gzip members": lambda data: gzip.compress(data[:40]) + gzip.compress(data[40:]),
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
@pytest.mark.parametrize("name", ["r.csv.gz", "r.csv"])
def test_a_compressed_table_is_unpacked_whatever_its_name(tmp_path, pack, name):
    path = tmp_path / name
    path.write_bytes(pack(CSV))
    assert rows_of(read(path)) == rows_of(read(path, source="table")) == WANTED


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED)
def test_damaged_compression_is_named(tmp_path, pack):
    path, whole = tmp_path / "r.csv.gz", pack(CSV * 1000 + np.random.default_rng(0).bytes(50_000))
    path.write_bytes(whole[:-1000])
    assert_says(refusal(path), str(path), "damaged or truncated", "fetch it again")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "r.csv.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(300):
            file.write(b"a,x,4,20\n" * (1 << 17))
    began = time.process_time()
    assert_says(refusal(path), str(path), "bytes unpack to", "unpack it yourself")
    assert time.process_time() - began < 5
    archive = tmp_path / "r.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made, made.open("r.csv", "w") as member:
        for _ in range(100):
            member.write(b"a,x,4,20\n" * (1 << 17))
    assert_says(refusal(archive), "r.csv", "bytes unpack to")


def test_a_parquet_file_of_runs_is_refused_before_it_fills_the_memory(tmp_path):
    path, rows = tmp_path / "r.parquet", 1 << 20
    group = pa.table({name: np.zeros(rows, np.int64) for name in ("user_id", "item_id", "rating", "timestamp")})
    with pa.parquet.ParquetWriter(path, group.schema) as writer:
        for _ in range(8):
            writer.write_table(group, row_group_size=rows)
    assert_says(refusal(path), str(path), "bytes unpack to")


def test_a_zip_with_one_table_and_one_of_several(tmp_path):
    one = zipped(tmp_path / "one.zip", data__csv=CSV, README__txt=b"hello", **{"../../up": b"x"})
    assert rows_of(read(one)) == rows_of(read(one, source="table")) == WANTED
    assert not (tmp_path.parent / "up").exists()
    several = zipped(tmp_path / "several.zip", data__csv=CSV, items__csv=b"item_id,title\nx,A lamp\ny,A desk\n")
    assert_says(refusal(several), "several.zip", "data.csv", "items.csv")
    data = read(several / "data.csv", items_path=str(several / "items.csv"))
    assert data.items.texts == ("A lamp", "A desk")
    assert_says(refusal(several / "no.csv"), "several.zip has no file no.csv", "data.csv")


@pytest.mark.parametrize("flip", range(30, 90, 7))
def test_a_damaged_zip_is_named(tmp_path, flip):
    path = zipped(tmp_path / "r.zip", data__csv=CSV)
    content = bytearray(path.read_bytes())
    content[flip] ^= 0xFF
    path.write_bytes(content)
    try:
        assert rows_of(read(path)) == WANTED  # some bytes have no meaning
    except MetarecError as error:
        assert_says(str(error), "r.zip")


# JSON lines


def lines(*rows):
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()


GOOD = [{"user_id": u, "item_id": i, "rating": r, "timestamp": t, "more": [1]} for u, i, r, t in sorted(WANTED)]


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.txt"])
def test_json_lines(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(lines(*GOOD))
    assert rows_of(read(path)) == WANTED
    path.write_bytes(gzip.compress(lines(GOOD[0], "", *GOOD[1:])))
    assert rows_of(read(path)) == WANTED


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_lines_of_any_encoding(tmp_path, encoding):
    path = tmp_path / "r.jsonl"
    path.write_bytes(lines(*GOOD).decode().replace("\n", "\r\n").encode(encoding))
    assert rows_of(read(path)) == WANTED


def test_ids_that_look_like_dates_are_kept_and_times_are_read(tmp_path):
    path = tmp_path / "r.jsonl"
    named = {"user_id": "2020-01-01", "rating": 1, "timestamp": "2020-01-01T00:00:00.5Z"}
    path.write_bytes(lines({**named, "item_id": "a"}, {**named, "item_id": "b", "rating": 2}))
    data = read(path)
    assert (data.users.ids, data.time_unit, data.time[0]) == (("2020-01-01",), "ms", 1_577_836_800_500)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (lines(*GOOD, '{"user_id": "a",'), ["line 4", "not JSON", "one object a line"]),
        (lines(*GOOD, "[1, 2]"), ["line 4", "no object"]),
        (lines(*GOOD, "{'user_id': 'a'}"), ["line 4", "not JSON"]),
        (lines(GOOD[0], {**GOOD[1], "user_id": 5}, GOOD[2]), ["line 2", "'user_id' is 5", "another type in line 1"]),
        (lines(GOOD[0], {**GOOD[1], "rating": "good"}), ["line 2", "'rating' is 'good'"]),
        (lines(GOOD[0], {**GOOD[1], "user_id": None}), ["line 2", "the user (user_id) is empty"]),
        (lines(GOOD[0], {}), ["line 2", "empty"]),
        (lines({}, {}), ["no column 'user_id'", "it has none"]),
        (lines(*({**row, "user_id": {"a": 1}} for row in GOOD)), ["'user_id' holds struct", "name another column"]),
        (json.dumps(GOOD).encode(), ["JSON array", "one object a line"]),
        (lines(*({"asin": "1", **row} for row in GOOD)).replace(b"item_id", b"id"), ["no column 'item_id'", "asin"]),
        (b'{"a": ' + b"[" * 100_000, ["line 1", "not JSON"]),
    ],
)
def test_json_lines_with_a_mistake(tmp_path, content, says):
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    assert_says(refusal(path), str(path), *says)


def test_a_field_of_several_types_is_left_out_unless_it_is_asked_for(tmp_path):
    path, items = tmp_path / "r.jsonl", tmp_path / "i.jsonl"
    path.write_bytes(lines(*({**row, "more": n if n else "none"} for n, row in enumerate(GOOD))))
    assert rows_of(read(path)) == WANTED
    pages = [10, "about 20", None]
    rows = [
        {"item_id": i, "title": f"Book {i}", "pages": page, "shelf": "b"}
        for i, page in zip(sorted({row["item_id"] for row in GOOD}), pages)
    ]
    items.write_bytes(lines(*rows, {"item_id": "other", "title": "?", "late": "x", "isbn": 2**70}))
    data = read(path, items_path=str(items))
    assert (set(data.items.details), len(data.items.ids)) == ({"shelf", "late", "isbn"}, len(rows) + 1)
    assert any("left out, since their values are of several types: pages" in note for note in data.notes)
    says = refusal(path, items_path=str(items), columns=Columns(item_text="pages"))
    assert_says(says, str(items), "line 2", "'pages' is 'about 20'", "another type in line 1")


def test_types_and_fields_of_late_blocks_of_lines_are_read(tmp_path, monkeypatch):
    """Whole numbers, then fractions; a field that is null for long; and one that comes late."""
    monkeypatch.setattr("metarec_jax.data.sources.json_text.BLOCK", 10_000)
    rows = [
        {"user": n, "rating": 2 if n < 4000 else 2.5, "tags": None if n < 3000 else ["x", "y"], "skipped": n % 2 or "a"}
        for n in range(6000)
    ]
    rows[5000]["late"] = "here"
    file = File("r.jsonl", lines(*rows))
    table = JsonLines(file, "auto", ["user", "rating", "tags", "late", "never"])
    assert sorted(table.names) == ["late", "rating", "tags", "user"]
    found = table.read({"user": "user", "rating": "rating"}, options={}, rest=True).columns
    assert found["rating"].to_pylist() == [row["rating"] for row in rows]
    assert found["tags"].to_pylist()[2999:3001] == [None, "x, y"]
    assert found["late"].to_pylist()[4999:5002] == [None, "here", None]


# No tables


def test_only_regular_files_are_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    ratings = tmp_path / "r.csv"
    ratings.write_bytes(CSV)
    items = tmp_path / "i.csv"
    items.write_bytes(b"item_id,title\nx,A lamp\ny,A desk\n")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("door.csv")
    cases = [
        (tmp_path / "pipe.csv", "is a pipe or a device"),
        (tmp_path / "door.csv", "is a pipe or a device"),
        ("/dev/zero", "is a pipe or a device"),
        (tmp_path / "loop.csv", "cannot be read"),
        (tmp_path / "no.csv", "there is no such file"),
        (f"{ratings}/no.csv", "there is no such file"),
    ]
    for path, says in cases:
        assert_says(refusal(path), "--data.path", says)
        assert_says(refusal(ratings, items_path=str(path)), "--data.items-path", says)
        assert_says(refusal(ratings, items_path=str(items), vectors=str(path)), "--data.vectors", says)
    assert_says(refusal(ratings, items_path=str(tmp_path / "folder.csv")), "--data.items-path", "no tables")
    assert_says(refusal(f"{ratings}\0"), "data.path is", "NUL")


def database():
    made = sqlite3.connect(":memory:")
    made.execute("CREATE TABLE r (u)")
    return made.serialize()


def tar():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        made.addfile(tarfile.TarInfo("r.csv"), io.BytesIO())
    return file.getvalue()


def array():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


OTHERS = {
    "a tar archive": tar(),
    "unpacks to a tar archive": gzip.compress(tar()),
    "a pickle, which is never loaded": pickle.dumps({"a": [1]}),
    "an SQLite database": database(),
    "a NumPy array": array(),
    "compressed with xz": b"\xfd7zXZ\x00" + bytes(100),
    "an Excel workbook": b"\xd0\xcf\x11\xe0" + bytes(100),
    "a web page": b"\n<!DOCTYPE html><html><body>log in</body></html>",
    "is empty": b"",
    "unpacks to a compressed file once more": gzip.compress(gzip.compress(b"a,b\n")),
    "unpacks to nothing": gzip.compress(b""),
    "holds no line of text": b"\n\n",
    "a NUL byte": b"a,b\0c\n",
}


@pytest.mark.parametrize(("says", "content"), OTHERS.items(), ids=OTHERS)
def test_what_is_no_table_is_named(tmp_path, says, content):
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    assert_says(refusal(path), str(path), says)


def test_an_excel_workbook_is_no_zip_of_tables(tmp_path):
    path = zipped(tmp_path / "r.xlsx", **{"[Content_Types]__xml": b"<x/>", "xl/workbook__xml": b"<x/>"})
    assert_says(refusal(path, source="table"), "r.xlsx", "Office document", "save the sheet as CSV")


# Parquet and NumPy


def test_ids_and_details_of_parquet_types(tmp_path):
    import decimal

    path = tmp_path / "r.parquet"
    columns = {
        "user_id": pa.array([decimal.Decimal("7"), decimal.Decimal("9")], pa.decimal128(20, 2)),
        "item_id": pa.array([2.0, 1.0], pa.float32()),
        "rating": pa.array([decimal.Decimal("3.5"), decimal.Decimal("4")], pa.decimal128(5, 1)),
    }
    pa.parquet.write_table(pa.table(columns), path)
    assert rows_of(read(path)) == {("7", "2", 3.5, 0), ("9", "1", 4.0, 0)}
    items = tmp_path / "i.parquet"
    columns = {
        "item_id": [1, 2],
        "title": ["A lamp", "A desk"],
        "tags": [["Home", "Lamps"], []],
        "price": [2.5, float("nan")],
        "images": [[{"url": "x"}], []],
        "thumb": [b"\xff", b"\xfe"],
    }
    pa.parquet.write_table(pa.table(columns), items)
    data = read(path, items_path=str(items))
    assert data.items.details == {"tags": ("Home, Lamps", ""), "price": ("2.5", "")}
    assert_says(" ".join(data.notes), "left out", "images, thumb")


def test_very_many_columns_of_parquet_take_seconds(tmp_path):
    path = tmp_path / "r.parquet"
    columns = {f"c{n}": [1, 2] for n in range(20_000)}
    pa.parquet.write_table(pa.table({"user_id": [1, 2], "item_id": [1, 2], "rating": [1, 2], **columns}), path)
    began = time.process_time()
    assert len(read(path)) == 2
    assert len(refusal(path, columns=Columns(user="who"))) < 1000
    assert time.process_time() - began < 10


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_damaged_parquet_is_named(tmp_path, share):
    path = tmp_path / "r.parquet"
    columns = {name: np.arange(5000) for name in ("user_id", "item_id", "rating", "timestamp")}
    pa.parquet.write_table(pa.table(columns), path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    at = int(len(content) * share)
    content[at : at + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(content)
    assert_says(refusal(path), str(path), "damaged")


@pytest.mark.parametrize("shape", ["(1000000000, 1000000)", "(-1, 3)", "(3, 10**9)", "()"])
def test_an_array_that_claims_another_shape_is_refused_without_the_memory(tmp_path, shape):
    ratings, items = tmp_path / "r.csv", tmp_path / "i.csv"
    ratings.write_bytes(CSV)
    items.write_bytes(b"item_id,title\nx,A lamp\ny,A desk\n")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    path = tmp_path / "v.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24))
    assert_says(refusal(ratings, items_path=str(items), vectors=str(path)), "--data.vectors", str(path))
