"""A description of 150,000 characters is read, and an item without a title is read by another text, with a remark."""

import csv

import pytest
from helpers import assert_says

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

LONG = "word " * 30_000


@pytest.fixture
def folder(tmp_path):
    rows = [(u, i, (u + i) % 5 + 1, i) for u in range(20) for i in range(1, 13)]
    items = [(i, "" if i == 9 else f"Lamp {i}", LONG if i == 2 else "  " if i == 9 else "short") for i in range(1, 13)]
    for name, header, content in (
        ("ratings.csv", ["user_id", "item_id", "rating", "timestamp"], rows),
        ("items.csv", ["item_id", "title", "description"], items),
    ):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *content])
    return tmp_path


def read(folder):
    return load(DataConfig(path=str(folder / "ratings.csv"), items_path=str(folder / "items.csv")))


def test_long_descriptions_are_read_and_blank_texts_are_replaced(folder):
    data = read(folder)
    assert data.items.details["description"][1] == LONG
    assert data.items.texts[7:10] == ("Lamp 8", "9", "Lamp 10")
    (note,) = data.notes
    assert_says(note, "items.csv: 1 text is blank", "item '9'", "the id is read instead")
    content = (folder / "items.csv").read_text().replace("9,,  ", "9,,A blue lamp")
    (folder / "items.csv").write_text(content)
    data = read(folder)
    assert data.items.texts[8] == "A blue lamp"
    assert_says(data.notes[0], "description is read instead")


def test_a_mistake_below_a_long_value_is_named_by_its_line(folder):
    with (folder / "items.csv").open("a") as file:
        file.write("9,again,short\n")
    with pytest.raises(MetarecError, match=r"items\.csv, line 14: item '9' is already in line 10"):
        read(folder)
