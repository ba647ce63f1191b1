"""Every layout gives the same data, and every mistake in one is refused with file, line, value and remedy."""

import re
import zipfile

import layouts
import numpy as np
import pytest

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Users
from metarec_jax.data import load

WRITERS = {
    "movielens-100k": layouts.movielens_100k,
    "recbole": layouts.recbole,
    "movielens-1m": layouts.movielens_1m,
    "movielens-latest": layouts.movielens_csv,
}


def read(path, source="auto"):
    return load(DataConfig(source=source, path=str(path)))


def refusal(path, source="auto"):
    with pytest.raises(MetarecError) as caught:
        read(path, source)
    return str(caught.value)


def assert_says(message, *parts):
    for part in parts:
        assert part in message, f"{part!r} is not in {message!r}"


def test_content_of_the_100k_layout(tmp_path):
    data = read(layouts.movielens_100k(tmp_path))
    assert data.users.ids == ("7", "9", "12")
    assert data.users.texts == ("A 24 year old man, technician.", "A 31 year old woman.", "An 8 year old woman.")
    assert data.items.ids == ("1", "2", "3", "4", "10")
    assert data.items.titles == (
        "The Quiet Harbour (1995)",
        "Seven Kites (1988)",
        "L'Été perdu (The Lost Summer) (1970)",
        "Nobody, Nowhere (1999)",
        'The "Iron" Orchard (1951)',
    )
    assert data.items.texts[1] == "Seven Kites (1988). Animation, Children's."
    assert data.items.texts[3] == "Nobody, Nowhere (1999)."
    assert data.items.details["genres"] == (
        "Drama",
        "Animation, Children's",
        "Drama, Romance",
        "",
        "Film-Noir, Western",
    )
    assert data.items.details["year"] == ("1995", "1988", "1970", "1999", "1951")
    # By user, then time, then item: users 7 and 9 are rows 0 and 1.
    np.testing.assert_array_equal(data.user, [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(data.item, [0, 1, 2, 3, 1])
    np.testing.assert_array_equal(data.rating, [5, 2, 1, 3, 4])
    np.testing.assert_array_equal(data.time, [100, 200, 200, 150, 300])
    assert [data.user.dtype, data.item.dtype, data.rating.dtype, data.time.dtype] == [
        *(np.int32, np.int32, np.float32, np.int64)
    ]
    assert data.scale == STARS
    assert data.source == f"MovieLens-100K from {tmp_path}"
    assert "10.1145/2827872" in data.citation


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_of_one_content_gives_the_same_data(tmp_path, layout):
    expected = read(layouts.movielens_100k(tmp_path / "reference"))
    data = read(WRITERS[layout](tmp_path / "other"))
    rated = expected.users.ids[:2]
    assert data.items == expected.items
    if layout in ("movielens-100k", "recbole"):
        assert data.users == expected.users
    else:  # no profiles are in these files, so the user without a rating is not known
        assert data.users == Users(rated, None)
    for name in ("user", "item", "rating", "time"):
        ours, theirs = getattr(data, name), getattr(expected, name)
        if name == "rating":
            ours, theirs = data.scale.decimal(ours), expected.scale.decimal(theirs)
        np.testing.assert_array_equal(ours, theirs)
    if layout == "movielens-latest":
        assert data.scale.levels == (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
        assert (data.scale.low, data.scale.high) == (0.5, 5.0)
    else:
        assert data.scale == expected.scale == STARS


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("top", ["", "some-folder/"])
def test_a_zip_reads_as_its_folder(tmp_path, layout, top):
    folder = WRITERS[layout](tmp_path / "folder")
    archive = layouts.zipped(folder, tmp_path / "data.zip", top)
    ours, theirs = read(archive), read(folder)
    assert (ours.users, ours.items) == (theirs.users, theirs.items)
    for name in ("user", "item", "rating", "time"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_order_of_lines_and_line_ends_change_nothing(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    before = read(folder)
    for name in ("u.data", "u.item", "u.user"):
        lines = (folder / name).read_bytes().split(b"\n")[:-1]
        (folder / name).write_bytes(b"\r\n".join(lines[::-1]))
    after = read(folder)
    assert (after.users, after.items) == (before.users, before.items)
    np.testing.assert_array_equal(after.rating, before.rating)
    np.testing.assert_array_equal(after.item, before.item)


def test_profiles_of_the_1m_layout_are_spelled_out(tmp_path):
    data = read(layouts.movielens_1m(tmp_path, users=True))
    assert data.users.texts == (
        "A man aged 18 to 24, technician or engineer.",
        "A woman aged under 18, school student.",
        "A man aged 56 or over.",
    )
    folder = layouts.recbole(tmp_path / "recbole")
    replace(folder / "ml-100k.user", "24\tM\ttechnician", "18\tM\t17")
    replace(folder / "ml-100k.user", "31\tF\tother", "1\tF\t10")
    replace(folder / "ml-100k.user", "8\tF\tnone", "56\tM\t0")
    assert read(folder).users.texts == data.users.texts


def test_movietweetings_is_told_from_movielens_by_the_numbers_of_its_films(tmp_path):
    folder = layouts.movietweetings(tmp_path / "tweets")
    data = read(folder)
    assert data.layout == "movietweetings"
    assert data.items.ids == ("0000001", "0000002", "0000003", "0000004", "0000010")
    assert data.items.texts == read(layouts.movielens_1m(tmp_path / "1m")).items.texts
    assert data.users == Users(("7", "9"), None)
    assert data.scale.levels == tuple(range(11))
    of_ten = {2: 1.8, 4: 2.6, 6: 3.4, 8: 4.2, 10: 5.0, 0: 1.0}  # on the standard scale of 1 to 5
    np.testing.assert_allclose(data.rating, [of_ten[n] for n in (10, 4, 2, 6, 8, 0)], rtol=1e-6)
    assert read(folder, "movietweetings").items == data.items
    (folder / "users.dat").unlink()
    assert read(folder).users == data.users
    assert_says(
        refusal(layouts.movielens_1m(tmp_path / "1m"), source="movietweetings"), "'movietweetings'", "movielens-1m"
    )


def test_without_profiles_there_are_no_user_texts(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    (folder / "u.user").unlink()
    assert read(folder).users == Users(("7", "9"), None)


def test_titles_that_recbole_garbles_are_restored(tmp_path):
    folder = layouts.recbole(tmp_path)
    replace(folder / "ml-100k.item", "Seven Kites\t1988\tAnimation Children's", "unkonwn\tunkonwn\tunknown")
    replace(folder / "ml-100k.item", "Nobody, Nowhere\t1999", "Nobody III: Nowhere (1999)\tV")
    data = read(folder)
    assert data.items.titles[1] == "unknown"
    assert data.items.texts[1] == "unknown."
    assert data.items.details["year"][1] == ""
    assert data.items.titles[3] == "Nobody III: Nowhere (1999) (V)"
    assert data.items.details["year"][3] == "1999"


def test_films_file_in_utf8_is_read_as_such(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    (folder / "u.item").write_text((folder / "u.item").read_text("latin-1"), encoding="utf-8")
    assert read(folder).items.titles[2] == "L'Été perdu (The Lost Summer) (1970)"


def test_half_stars_are_levels_of_movielens_csv_only(tmp_path):
    folder = layouts.movielens_csv(tmp_path / "csv")
    replace(folder / "ratings.csv", "7,1,5,100", "7,1,4.5,100")
    data = read(folder)
    assert data.scale.decimal(data.rating[0]) == 4.5
    folder = layouts.movielens_100k(tmp_path / "100k")
    replace(folder / "u.data", "7\t1\t5\t100", "7\t1\t4.5\t100")
    assert_says(refusal(folder), "u.data, line 3", "4.5", "1, 2, 3, 4, 5")


# Mistakes. The third line of u.data is: user 7, item 1, rating 5, time 100.


def replace(path, old, new):
    content = path.read_bytes()
    old, new = (part if isinstance(part, bytes) else part.encode("latin-1") for part in (old, new))
    assert content.count(old) == 1, f"{old!r} is {content.count(old)} times in {path}"
    path.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("7\t1\tfive\t100", ["the rating", "'five'", "not a finite number", "correct it"]),
        ("7\t1\t\t100", ["the rating", "empty", "correct it"]),
        ("7\t1\tnan\t100", ["the rating", "'nan'", "correct it"]),
        ("7\t1\tinf\t100", ["the rating", "'inf'", "correct it"]),
        ("7\t1\t1_0\t100", ["the rating", "'1_0'"]),
        ("7\t1\t6\t100", ["the rating", "is 6", "outside 1 to 5"]),
        ("7\t1\t0\t100", ["the rating", "is 0", "outside 1 to 5"]),
        ("7\t1\t-3\t100", ["the rating", "is -3", "outside 1 to 5"]),
        ("7\t1\t3.7\t100", ["the rating", "is 3.7", "one of 1, 2, 3, 4, 5"]),
        ("7\t1\t5\tnoon", ["the time", "'noon'", "seconds since 1970"]),
        ("7\t1\t5\t", ["the time", "empty", "seconds since 1970"]),
        ("7\t1\t5\t1e30", ["the time", "1e+30", "too large", "seconds since 1970"]),
        ("7\t99\t5\t100", ["item '99'", "is not in", "u.item", "add it there"]),
        ("99\t1\t5\t100", ["user '99'", "is not in", "u.user", "add it there"]),
        ("\t1\t5\t100", ["the user", "empty"]),
        ("7\t\t5\t100", ["the item", "empty"]),
        ("7\t3\t5\t100", ["user '7' and item '3'", "already in line 2", "keep one"]),
        ("7\t1\t5", ["3 values where there must be 4", "tabs"]),
        ("7\t1\t5\t100\t8", ["5 values where there must be 4"]),
        ("7 1 5 100", ["1 values where there must be 4"]),
        (b"7\t1\t5\x00\t100", ["NUL"]),
        (b"7\t1\t\xff\t100", ["0xff", "UTF-8"]),
    ],
    ids=lambda value: re.sub(r"\W+", "_", str(value)) if isinstance(value, str | bytes) else "",
)
def test_a_broken_line_of_ratings_is_named(tmp_path, new, says):
    folder = layouts.movielens_100k(tmp_path)
    replace(folder / "u.data", "7\t1\t5\t100", new)
    assert_says(refusal(folder), f"{folder / 'u.data'}, line 3", *says)


@pytest.mark.parametrize("layout", WRITERS)
def test_line_numbers_count_the_header(tmp_path, layout):
    folder = WRITERS[layout](tmp_path)
    path = next(
        folder / name for name in ("u.data", "ml-100k.inter", "ratings.dat", "ratings.csv") if (folder / name).exists()
    )
    lines = path.read_bytes().split(b"\n")
    row = next(i for i, line in enumerate(lines) if line.startswith(b"9") and b"150" in line)
    lines[row] = lines[row].replace(b"150", b"soon")
    path.write_bytes(b"\n".join(lines))
    assert_says(refusal(folder), f"{path}, line {row + 1}:", "'soon'")


def test_line_numbers_count_empty_lines(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    replace(folder / "u.data", "7\t1\t5\t100\n", "\n\n7\t1\tfive\t100\n\n")
    assert_says(refusal(folder), f"{folder / 'u.data'}, line 5:", "'five'")
    replace(folder / "u.data", "five", "5")
    assert len(read(folder)) == 5


def test_a_message_in_a_zip_names_the_file_in_it(tmp_path):
    folder = layouts.movielens_100k(tmp_path / "folder")
    replace(folder / "u.data", "7\t1\t5\t100", "7\t1\tfive\t100")
    archive = layouts.zipped(folder, tmp_path / "data.zip", "ml-100k/")
    assert_says(refusal(archive), f"{archive}/ml-100k/u.data, line 3", "'five'")


def test_a_film_without_a_title_is_read_by_another_word_about_it_with_a_remark(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    replace(folder / "u.item", "Seven Kites (1988)", "")
    data = read(folder)
    assert data.items.texts[data.items.ids.index("2")].strip()
    (note,) = data.notes
    assert_says(note, str(folder / "u.item"), "1 text is blank", "item '2'")


def test_a_film_that_comes_twice_is_named(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    replace(folder / "u.item", "3|\xc9t\xe9", "2|\xc9t\xe9")
    assert_says(refusal(folder), f"{folder / 'u.item'}, line 3", "item '2'", "already in line 2", "remove")


def test_a_user_that_comes_twice_is_named(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    replace(folder / "u.user", "9|31", "7|31")
    assert_says(refusal(folder), f"{folder / 'u.user'}, line 2", "user '7'", "already in line 1")


@pytest.mark.parametrize("name", ["u.data", "u.item", "u.user"])
def test_an_empty_file_is_named(tmp_path, name):
    folder = layouts.movielens_100k(tmp_path)
    (folder / name).write_bytes(b"")
    assert_says(refusal(folder), f"{folder / name} is empty")
    (folder / name).write_bytes(b"\n\n")
    assert_says(refusal(folder), str(folder / name), "holds no")


def test_a_file_with_nothing_but_a_header_is_named(tmp_path):
    folder = layouts.movielens_csv(tmp_path)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    assert_says(refusal(folder), f"{folder / 'ratings.csv'} holds no interaction")


def test_a_missing_column_of_a_published_layout_is_named(tmp_path):
    folder = layouts.movielens_csv(tmp_path)
    replace(folder / "ratings.csv", "movieId", "movie_id")
    names = "userId, movie_id, rating, timestamp"
    assert_says(refusal(folder), str(folder / "ratings.csv"), "'movieId'", names, "rename movie_id")


def test_a_file_that_belongs_to_the_layout_is_missed(tmp_path):
    folder = layouts.movielens_100k(tmp_path)
    (folder / "u.item").unlink()
    assert_says(refusal(folder), str(folder), "no file u.item", "u.data")


def test_truncated_ratings_are_refused_where_they_end(tmp_path):
    folder = layouts.movielens_1m(tmp_path)
    content = (folder / "ratings.dat").read_bytes()
    (folder / "ratings.dat").write_bytes(content[:-6])
    assert_says(refusal(folder), f"{folder / 'ratings.dat'}, line 5", "'::'")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert_says(refusal(tmp_path), str(tmp_path), "u.data", "*.inter", "ratings.dat", "ratings.csv", "notes.txt")


def test_another_layout_than_asked_for_is_refused(tmp_path):
    folder = layouts.movielens_1m(tmp_path)
    message = refusal(folder, source="movielens-100k")
    assert_says(message, "ratings.dat", "'movielens-100k'", "--data.source movielens-1m")


def test_a_path_that_is_not_there_is_named(tmp_path):
    assert_says(refusal(tmp_path / "nowhere"), "--data.path", str(tmp_path / "nowhere"), "no such file")
    (tmp_path / "u.data").write_text("x")
    assert_says(refusal(tmp_path / "u.data"), str(tmp_path / "u.data"), "no column 'user_id'", "it has x")


@pytest.mark.parametrize("option", [{"repeats": "latest"}, {"separator": "tab"}, {"encoding": "latin-1"}])
def test_options_of_tables_are_refused_for_a_layout(tmp_path, option):
    folder = layouts.movielens_1m(tmp_path)
    (name,) = option
    with pytest.raises(MetarecError, match=rf"data\.{name} is .* holds movielens-1m.*leave --data\.{name} out"):
        load(DataConfig(path=str(folder), **option))


def test_auto_without_a_path_is_movielens_100k(tmp_path):
    layouts.movielens_100k(tmp_path / "ml-100k")
    data = load(DataConfig(cache=str(tmp_path)))
    assert data.source.startswith("MovieLens-100K from the cache folder")


def test_several_recbole_sets_in_one_folder_are_refused(tmp_path):
    folder = layouts.recbole(tmp_path)
    (folder / "other.inter").write_text("x")
    assert_says(refusal(folder), "ml-100k, other", "folder with one")


# Zips


def test_a_hostile_zip_writes_nothing(tmp_path):
    folder = layouts.movielens_100k(tmp_path / "folder")
    place = tmp_path / "deep" / "down"
    place.mkdir(parents=True)
    archive = place / "data.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in sorted(folder.iterdir()):
            made.write(path, f"../../evil/{path.name}")
        made.writestr("/etc/metarec-evil", "x")
    before = sorted(tmp_path.rglob("*"))
    assert len(read(archive)) == 5
    assert sorted(tmp_path.rglob("*")) == before


def test_what_macos_adds_to_a_zip_is_passed_over(tmp_path):
    folder = layouts.movielens_100k(tmp_path / "folder")
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("__MACOSX/u.data", "junk")
        for path in sorted(folder.iterdir()):
            made.write(path, f"x/y/{path.name}")
    assert len(read(archive)) == 5


def test_broken_zips_are_refused(tmp_path):
    folder = layouts.movielens_100k(tmp_path / "folder")
    archive = layouts.zipped(folder, tmp_path / "data.zip", "")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    assert_says(refusal(archive), str(archive), "fetch it again")
    middle = content.index(b"u.data") + 20  # inside the compressed ratings
    archive.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    assert_says(refusal(archive), f"{archive}/u.data", "damaged")
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("u.data", "")
    assert_says(refusal(archive), f"{archive}/u.data is empty")
