r"""A dump in which a quote within quotes is written \" , as MySQL and the book site's dump write it."""

import pytest

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.data import load

COLUMNS = Columns(user="User-ID", item="ISBN", rating="Book-Rating", time="", item_text="Book-Title")


@pytest.mark.parametrize("escape", ["auto", "backslash"])
@pytest.mark.parametrize(
    ("written", "title"),
    [
        (r"Peter \"Stone\" Mill", 'Peter "Stone" Mill'),
        (r"The \"Long; and Winding\" Way", 'The "Long; and Winding" Way'),
        (r"\"Quoted\"", '"Quoted"'),
        (r"A 12\" record; \\ and more", 'A 12" record; \\ and more'),
    ],
)
def test_titles_have_no_half_of_their_escapes(tmp_path, escape, written, title):
    ratings = "".join(f'"{u}";"{i:010d}";"{2 * ((u + i) % 5 + 1)}"\r\n' for u in range(20) for i in range(1, 6))
    (tmp_path / "ratings.csv").write_bytes(f'"User-ID";"ISBN";"Book-Rating"\r\n{ratings}'.encode())
    titles = "".join(f'"{i:010d}";"{written if i == 1 else "Plain"}";"A. Writer"\r\n' for i in range(1, 6))
    (tmp_path / "books.csv").write_bytes(f'"ISBN";"Book-Title";"Book-Author"\r\n{titles}'.encode())
    paths = {"path": str(tmp_path / "ratings.csv"), "items_path": str(tmp_path / "books.csv")}
    data = load(DataConfig(**paths, columns=COLUMNS, escape=escape))
    assert data.items.texts == (title, *["Plain"] * 4)
    assert (len(data), data.notes) == (100, ())
