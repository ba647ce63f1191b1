"""Text tables of any separator, header, quoting, escape and encoding; and those that are refused."""

import time

import numpy as np
import pytest
from helpers import assert_says

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

HEADER = "user_id,item_id,rating,timestamp"
ROWS = "a,x,4,20\nb,y,1,10\na,y,2,30\n"
TEXTS = Columns(item_text="title")


def read(path, **options):
    return load(DataConfig(path=str(path), **options))


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def refusal(path, **options):
    with pytest.raises(MetarecError) as caught:
        read(path, **options)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def ratings_of(data):
    return data.scale.decimal(data.rating)


def rows_of(data):
    return {
        (data.users.ids[u], data.items.ids[i], float(r), int(t))
        for u, i, r, t in zip(data.user, data.item, ratings_of(data), data.time)
    }


WANTED = {("a", "x", 4.0, 20), ("b", "y", 1.0, 10), ("a", "y", 2.0, 30)}


# Separators, headers, encodings


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", " ", "::"])
@pytest.mark.parametrize("name", ["r.csv", "r.data", "r.txt", "r"])
def test_a_separator_is_recognised_whatever_the_name(tmp_path, separator, name):
    path = write(tmp_path / name, f"{HEADER}\n{ROWS}".replace(",", separator))
    assert rows_of(read(path)) == WANTED


@pytest.mark.parametrize(("option", "separator"), [("tab", "\t"), ("\\t", "\t"), ("^", "^"), ("§", "§"), ("||", "||")])
def test_a_separator_that_is_named(tmp_path, option, separator):
    path = write(tmp_path / "r.csv", f"{HEADER}\n{ROWS}".replace(",", separator))
    assert rows_of(read(path, separator=option)) == WANTED


@pytest.mark.parametrize(
    "written",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-32"),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        lambda text: text.replace("\n", "\n\n\r\n").encode(),
        lambda text: ("\n\n" + text.rstrip()).encode(),
        lambda text: ("sep=,\r\n" + text).encode(),
    ],
    ids=["UTF-8 with a mark", "UTF-16", "UTF-32", "CR", "CRLF in UTF-16", "empty lines", "no last line end", "Excel"],
)
def test_bytes_of_any_kind(tmp_path, written):
    path = tmp_path / "r.csv"
    path.write_bytes(written(f"{HEADER}\n{ROWS}"))
    assert rows_of(read(path)) == WANTED


def test_an_encoding_is_told(tmp_path):
    path = write(tmp_path / "r.csv", f"{HEADER},title\na,x,4,20,Café\nb,y,1,10,Zoë\n", "cp1252")
    assert_says(refusal(path, columns=TEXTS), "line 2", "0xe9", "--data.encoding cp1252")
    assert read(path, columns=TEXTS, encoding="cp1252").items.texts == ("Café", "Zoë")


@pytest.mark.parametrize("encoding", ["no-such", "hex", "zip", "rot13", ""])
def test_an_encoding_that_is_none(encoding):
    with pytest.raises(MetarecError, match=r"data\.encoding is .*text encoding"):
        DataConfig(encoding=encoding)


@pytest.mark.parametrize("separator", ['"', "\n", "a\\"])
def test_a_separator_that_is_none(separator):
    with pytest.raises(MetarecError, match=r"data\.separator is .*must not contain"):
        DataConfig(separator=separator)


def test_a_table_without_a_header_is_read_in_the_usual_order(tmp_path):
    path = write(tmp_path / "u.data", "7\t1\t4\t20\n9\t2\t1\t10\n")
    data = read(path)
    assert rows_of(data) == {("7", "1", 4.0, 20), ("9", "2", 1.0, 10)}
    assert_says(" ".join(data.notes), "no header", "user, item, rating, time", "--data.columns.user 1")
    write(path, "7\t1\t4\n9\t2\t1\n")
    assert rows_of(read(path)) == {("7", "1", 4.0, 0), ("9", "2", 1.0, 0)}


def test_a_table_of_two_columns_without_a_header_needs_clicks(tmp_path):
    path = write(tmp_path / "r.dat", "1 2\n3 4\n")
    assert_says(refusal(path), "no column '3' (the rating)", "--data.kind click")
    assert rows_of(read(path, kind="click")) == {("1", "2", 1.0, 0), ("3", "4", 1.0, 0)}


def test_columns_of_a_table_without_a_header_have_numbers(tmp_path):
    path = write(tmp_path / "r.tsv", "1\tU1\t11\tI2\t3.5\n2\tU2\t12\tI1\t4\n")
    columns = Columns(user="2", item="4", rating="5", time="3")
    assert rows_of(read(path, columns=columns)) == {("U1", "I2", 3.5, 11), ("U2", "I1", 4.0, 12)}
    assert_says(refusal(path), "no header line and 5 columns", "--data.columns.user 1")
    assert_says(refusal(path, columns=Columns(user="2", item="6")), "no column '6'", "it has 1, 2, 3, 4, 5")


def test_whether_there_is_a_header_can_be_told(tmp_path):
    path = write(tmp_path / "r.csv", "x,y,2\na,b,5\n")
    assert rows_of(read(path, header="no")) == {("x", "y", 2.0, 0), ("a", "b", 5.0, 0)}
    path = write(tmp_path / "s.csv", "1,2,3\na,b,5\nc,b,4\n")
    columns = Columns(user="1", item="2", rating="3")
    assert rows_of(read(path, header="yes", columns=columns)) == {("a", "b", 5.0, 0), ("c", "b", 4.0, 0)}


def test_ratings_without_a_header_go_with_items_that_have_one(tmp_path):
    path = write(tmp_path / "u.data", "7\t1\t4\t20\n9\t2\t1\t10\n")
    items = write(tmp_path / "items.csv", 'item_id,title\n1,"A lamp, blue"\n2,A desk\n')
    columns = Columns(user="1", item="2", rating="3", time="4")
    for how in ({}, {"columns": columns}, {"separator": "tab", "header": "no"}):
        assert read(path, items_path=str(items), **how).items.texts == ("A lamp, blue", "A desk")


def test_columns_that_only_the_defaults_name_may_be_missing(tmp_path):
    path = write(tmp_path / "r.csv", "user_id,item_id,rating\na,x,4\nb,x,2\n")
    data = read(path)
    assert not data.time.any()
    assert_says(" ".join(data.notes), "no column 'timestamp'", "--data.columns.time")
    path = write(tmp_path / "c.csv", "user_id,item_id\na,x\nb,x\n")
    assert read(path, kind="click").rating.tolist() == [1, 1]
    assert_says(refusal(path), "no column 'rating'", "--data.kind click")


@pytest.mark.parametrize(
    ("ratings", "told", "wanted"),
    [
        (["3,5", "4", "0,25"], "auto", [3.5, 4, 0.25]),
        (["1,000", "2,500", "10"], ",", [1, 2.5, 10]),
        ([" 3,5", "-1,5", "1e1"], ",", [3.5, -1.5, 10]),
    ],
)
def test_decimal_commas(tmp_path, ratings, told, wanted):
    path = write(
        tmp_path / "r.csv", "user_id;item_id;rating\n" + "".join(f"a;{n};{r}\n" for n, r in enumerate(ratings))
    )
    np.testing.assert_array_equal(ratings_of(read(path, decimal=told)), wanted)


@pytest.mark.parametrize(
    ("ratings", "told"),
    [(["1,000", "2,500"], "auto"), (["3,5", "4.5"], "auto"), (["3,5", "4"], "."), (["1.000,5"], ",")],
)
def test_commas_that_may_group_thousands_are_refused(tmp_path, ratings, told):
    path = write(
        tmp_path / "r.csv", "user_id;item_id;rating\n" + "".join(f"a;{n};{r}\n" for n, r in enumerate(ratings))
    )
    assert_says(refusal(path, decimal=told), "line 2", ratings[0], "--data.decimal ,")


# Quotes and escapes


def reviews(texts, separator=","):
    lines = [f"u{n % 7},{n},{n % 5 + 1},{n}".replace(",", separator) + f"{separator}{t}" for n, t in enumerate(texts)]
    return "\n".join([f"{HEADER},title".replace(",", separator), *lines]) + "\n"


FINE = ["fine"] * 400


@pytest.mark.parametrize("at", [(40, 45), (40, 300), (40,), (399,)], ids=["near", "far", "open", "last line"])
@pytest.mark.parametrize(
    "closing", ['"Meh, said my aunt', 'fits a 12" shelf', 'fits 12"'], ids=["begins", "within", "ends"]
)
def test_quotes_of_a_dump_never_swallow_rows(tmp_path, at, closing):
    """The text opens a quote at the first place, and another one follows at the second."""
    texts = list(FINE)
    texts[at[0]] = '"Best lamp ever'
    if len(at) > 1:
        texts[at[1]] = closing.replace(",", "")
    path = write(tmp_path / "r.csv", reviews(texts))
    assert_says(refusal(path, columns=TEXTS), f"{path}, line {at[0] + 2}", "double quote opens", "--data.quoting none")
    assert read(path, columns=TEXTS, quoting="none").items.texts == tuple(texts)
    path = write(tmp_path / "r.tsv", reviews(texts, "\t"))
    assert read(path, columns=TEXTS).items.texts == tuple(texts)


def test_a_quoted_text_may_have_lines_but_not_too_many(tmp_path):
    texts = list(FINE)
    texts[3] = '"First, a lamp.\n\nThen 12 desks,\nand ""more"""'
    path = write(tmp_path / "r.csv", reviews(texts))
    assert read(path, columns=TEXTS).items.texts[3] == 'First, a lamp.\n\nThen 12 desks,\nand "more"'
    texts[5] = '"' + "long\n" * 150 + '"'
    write(path, reviews(texts))
    assert_says(refusal(path, columns=TEXTS), "line 10", "150 lines below", "--data.quoting double")
    assert read(path, columns=TEXTS, quoting="double").items.texts[5] == "long\n" * 150


def test_lines_of_a_quoted_text_that_look_like_rows_have_to_be_confirmed(tmp_path):
    texts = list(FINE)
    texts[3] = '"he wrote:\nu9,77,3,12,so so\nand left"'
    path = write(tmp_path / "r.csv", reviews(texts))
    assert_says(refusal(path, columns=TEXTS), "line 5", "look like rows", "--data.quoting double")
    assert len(read(path, columns=TEXTS, quoting="double")) == 400


def test_tabs_and_quotes_when_the_header_has_quotes(tmp_path):
    text = '"user_id"\t"item_id"\t"rating"\t"title"\n"a"\t"x"\t5\t"A ""tab""\tin it"\n"b"\t"x"\t4\t"A ""tab""\tin it"\n'
    data = read(write(tmp_path / "r.tsv", text), columns=TEXTS)
    assert data.items.texts == ('A "tab"\tin it',)


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        (r'"The \"Long, and Winding\" Way"', 'The "Long, and Winding" Way'),
        (r'"Peter \"Stone\""', 'Peter "Stone"'),
        (r'"\"Stone\" Mill, \\ Peter"', '"Stone" Mill, \\ Peter'),
        (r'"12\""', '12"'),
    ],
)
def test_escapes_are_recognised(tmp_path, title, wanted):
    path = write(tmp_path / "r.csv", f"user_id,item_id,rating,title\na,x,4,{title}\nb,y,2,plain\n")
    assert read(path, columns=TEXTS).items.texts == (wanted, "plain")


def test_a_backslash_that_escapes_nothing_is_kept(tmp_path):
    path = write(tmp_path / "r.csv", 'user_id,item_id,rating,title\na,x,4,"C:\\dir\\"\nb,y,2,a\\b\n')
    assert read(path, columns=TEXTS).items.texts == ("C:\\dir\\", "a\\b")
    path = write(tmp_path / "s.csv", 'user_id,item_id,rating,title\na,x,4,"say ""\\"""\nb,y,2,plain\n')
    assert read(path, columns=TEXTS).items.texts == ('say "\\"', "plain")


def test_a_backslash_that_would_escape_a_line_end_is_refused(tmp_path):
    path = write(tmp_path / "r.csv", 'user_id,item_id,rating,title\na,x,4,"a \\"b\\" c"\nb,y,2,C:\\\nc,z,1,d\n')
    assert_says(refusal(path, columns=TEXTS), str(path), "backslash")


# Size


def test_values_of_any_length_and_messages_of_few_words(tmp_path):
    long = "word " * 400_000
    text = f"user_id,item_id,rating,title\na,x,4,{long}\nb,y,2,short\nc,x,2,{long}\n"
    path = write(tmp_path / "r.csv", text)
    assert read(path, columns=TEXTS).items.texts == (long, "short")
    write(path, text.replace("b,y,2", "b,y,two"))
    assert_says(refusal(path, columns=TEXTS), f"{path}, line 3", "'two'")
    for broken in (
        text.replace("a,x,4", f"a,x,{long}"),
        text + f"c,{long}\n",
        f"{long}\n1\n",
        text + f"d,x,1,{long}s\n",
    ):
        assert len(refusal(write(path, broken), columns=TEXTS)) < 1000


def test_a_value_longer_than_a_block_of_arrow(tmp_path):
    long = "x" * (40 << 20)
    path = write(tmp_path / "r.csv", f'user_id,item_id,rating,title\na,x,4,"{long}"\nb,y,2,short\n')
    assert read(path, columns=TEXTS).items.texts == (long, "short")


def test_very_many_columns_take_seconds(tmp_path):
    wide = ",".join(f"c{n}" for n in range(100_000))
    path = write(tmp_path / "r.csv", f"{HEADER},{wide}\n" + "".join(f"{row}{',1' * 100_000}\n" for row in ROWS.split()))
    began = time.process_time()
    assert rows_of(read(path)) == WANTED
    assert len(refusal(path, columns=Columns(user="who"))) < 1000
    assert time.process_time() - began < 10


def test_a_wide_item_table_is_read_in_seconds(tmp_path):
    path = write(tmp_path / "r.csv", f"{HEADER}\n{ROWS}")
    wide = ",".join(f"c{n}" for n in range(20_000))
    items = write(tmp_path / "i.csv", f"item_id,title,{wide}\nx,A lamp{',1' * 20_000}\ny,A desk{',2' * 20_000}\n")
    began = time.process_time()
    assert len(read(path, items_path=str(items)).items.details) == 20_000
    assert time.process_time() - began < 10
