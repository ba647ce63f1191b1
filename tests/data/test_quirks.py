"""Text tables with quirks at random: they are read as pandas reads them, or refused by their line; no row is lost."""

import csv
import io
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

FIELDS = ("user_id", "item_id", "rating", "timestamp", "title")
WORDS = st.lists(
    st.sampled_from(["lamp", "a", "é", '"', '""', ",", ";", "|", "\\", "'", " ", '12"', "x", "#", "\n", "0"]),
    max_size=6,
).map("".join)
UNREFUSED = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def tables(draw):
    """Rows, each of another item, of which a few columns may be missing."""
    count = draw(st.integers(2, 12))
    rows = []
    for n in range(count):
        rating, time = draw(st.sampled_from(["1", "2.5", "4"])), str(draw(st.integers(0, 2_000_000_000)))
        rows.append([f"u{n % 3}", str(n + 1), rating if n > 1 else str(n + 1), time, draw(WORDS)])
    fields = [f for f in FIELDS if f != "timestamp" or draw(st.booleans())]
    return fields, [[row[FIELDS.index(f)] for f in fields] for row in rows]


def written(fields, rows, separator, line_end, blank, encoding, mark, **how):
    """The bytes of a table, with empty lines between rows where `blank`."""
    file = io.StringIO(newline="")
    made = csv.writer(file, delimiter=separator, lineterminator=line_end, **how)
    for row in [fields, *rows]:
        made.writerow(row)
        if blank:
            file.write(line_end)
    return (("\ufeff" if mark else "") + file.getvalue()).encode(encoding)


def pandas_rows(content, encoding, separator, **how):
    frame = pd.read_csv(io.BytesIO(content), sep=separator, dtype=str, keep_default_na=False, encoding=encoding, **how)
    return list(frame.columns), frame.to_numpy().tolist()


def ours(path, fields, **options):
    """The rows of the file as `load` reads them: user, item, rating, time and text, by item."""
    data = load(DataConfig(source="table", path=str(path), columns=Columns(item_text="title"), **options))
    order = np.argsort(data.item)
    ratings = data.scale.decimal(data.rating[order])
    return {
        (data.users.ids[u], data.items.ids[i], float(r), int(t), data.items.texts[i])
        for u, i, r, t in zip(data.user[order], data.item[order], ratings, data.time[order])
    }, len(data)


def expected(fields, rows):
    """The same of rows of strings; an item with a blank text is read by its id."""
    named = [dict(zip(fields, row)) for row in rows]
    return {
        (
            r["user_id"],
            r["item_id"],
            float(r["rating"]),
            int(r.get("timestamp", 0)),
            (r["title"].strip() and r["title"]) or r["item_id"],
        )
        for r in named
    }


@UNREFUSED
@given(
    table=tables(),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    blank=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "latin-1"]),
    mark=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_a_well_written_table_is_read_as_pandas_reads_it(
    tmp_path, table, separator, line_end, blank, encoding, mark, quoting
):
    fields, rows = table
    mark = mark and encoding != "latin-1"
    quoting = csv.QUOTE_ALL if line_end == "\r" else quoting  # Python's writer would not quote a lone \n there
    content = written(fields, rows, separator, line_end, blank, encoding, mark, quoting=quoting)
    path = tmp_path / "r.txt"
    path.write_bytes(content)
    # Between tabs, quotes have to be asked for; so has an encoding without a mark.
    told = {} if separator != "\t" else {"quoting": "double"}
    told |= {} if mark or encoding == "utf-8" else {"encoding": encoding}
    names, reference = pandas_rows(content.decode(encoding).removeprefix("\ufeff").encode(), "utf-8", separator)
    assert (names, reference) == (fields, rows)
    assert ours(path, fields, **told) == (expected(names, reference), len(rows))


@UNREFUSED
@given(table=tables(), separator=st.sampled_from([",", ";"]), line_end=st.sampled_from(["\n", "\r\n"]))
def test_backslashes_escape_quotes(tmp_path, table, separator, line_end):
    fields, rows = table
    how = {"quoting": csv.QUOTE_ALL, "doublequote": False, "escapechar": "\\"}
    content = written(fields, rows, separator, line_end, False, "utf-8", False, **how)
    path = tmp_path / "r.csv"
    path.write_bytes(content)
    names, reference = pandas_rows(content, "utf-8", separator, escapechar="\\", doublequote=False)
    assert (names, reference) == (fields, rows)
    assert ours(path, fields, escape="backslash") == (expected(names, reference), len(rows))


@UNREFUSED
@given(table=tables(), separator=st.sampled_from([",", ";", "|", "\t"]))
def test_a_dump_without_quoting_loses_no_row(tmp_path, table, separator):
    """Texts may begin, or hold, or end in quotes that nobody closed."""
    fields, rows = table
    for row in rows:
        row[-1] = re.sub(r"[\n,;|\t\\]", " ", row[-1])
    path = tmp_path / "r.csv"
    path.write_text("\n".join(separator.join(row) for row in [fields, *rows]) + "\n")
    assert ours(path, fields, quoting="none") == (expected(fields, rows), len(rows))
    refused = ""
    try:
        found, count = ours(path, fields)
    except MetarecError as error:
        refused = str(error)
    if separator == "\t":
        assert not refused
        assert found == expected(fields, rows)
    elif refused:
        assert re.search(r"r\.csv, line \d+: .*quote", refused, re.DOTALL)
        assert len(refused) < 1000
    else:
        assert count == len(rows)


@UNREFUSED
@given(table=tables(), broken=st.data())
def test_a_line_of_another_length_is_named(tmp_path, table, broken):
    fields, rows = table
    rows = [[*row[:-1], "text"] for row in rows]
    at = broken.draw(st.integers(0, len(rows) - 1))
    rows[at] = broken.draw(st.sampled_from([rows[at][:-1], [*rows[at], "more"]]))
    path = tmp_path / "r.csv"
    path.write_bytes(written(fields, rows, ",", "\n", False, "utf-8", False))
    with pytest.raises(MetarecError, match=rf"r\.csv, line {at + 2}: {len(rows[at])} values where"):
        ours(path, fields)
