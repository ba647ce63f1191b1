"""Lists for all users of a file, in parts, by `metarec_jax.recommender.batch` and its neighbours."""

import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import assert_says
from trained import small_data, trained_run

from metarec_jax.config.data import DataConfig
from metarec_jax.core import locks
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.batch import User, recommend_block
from metarec_jax.recommender.batch_parts import Part, parse_part, recommend_file, recommend_part
from metarec_jax.recommender.users_file import open_users

USERS = 11
BLOCK = 2


@pytest.fixture(scope="module")
def histories(recommender) -> dict[str, list[tuple[str, float]]]:
    """Ids of items and ratings of some users; the last one has no rating."""
    rng = np.random.default_rng(0)
    ids = recommender.catalogue.items.ids
    found = {f"user {u}": [(ids[i], float(1 + i % 5)) for i in rng.permutation(100)[: 1 + u]] for u in range(USERS)}
    return {**found, "new": []}


def opened(recommender, path: Path, **options):
    """The file at `path`."""
    return open_users(recommender, DataConfig(source="table", path=str(path), **options))


def written(folder: Path, histories, kind: str) -> Path:
    """A file of the users."""
    if kind == "ratings.csv":
        rows = [f"{u},{i},{r},{t}" for u, own in histories.items() for t, (i, r) in enumerate(own)]
        (folder / kind).write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]) + "\n")
        return folder / kind
    users = [{"user_id": u, "history": [{"item_id": i, "rating": r} for i, r in own]} for u, own in histories.items()]
    if kind == "users.parquet":
        pq.write_table(pa.Table.from_pylist(users), folder / kind, row_group_size=3)
    elif kind == "pairs.jsonl":
        lines = [json.dumps({"user_id": u, "history": own}) for u, own in histories.items()]
        (folder / kind).write_text("\ufeff" + "\n\n".join(lines), encoding="utf-8")
    else:
        lines = "".join(json.dumps(user) + "\n" for user in users).encode()
        (folder / kind).write_bytes(gzip.compress(lines) if kind.endswith(".gz") else lines)
    return folder / kind


def lists_of(folder: Path) -> dict[str, list[tuple[int, str, float]]]:
    """Place, item and score of each row of a user, of a Parquet file or folder; fails where a row is there twice."""
    table = pq.read_table(folder).to_pydict()
    found: dict[str, list[tuple[int, str, float]]] = {}
    for user, *row in zip(*table.values()):
        found.setdefault(user, []).append(tuple(row))
    for own in found.values():
        assert [place for place, *_ in own] == list(range(1, len(own) + 1))
    return found


@pytest.mark.parametrize("kind", ["users.jsonl", "users.jsonl.gz", "pairs.jsonl", "users.parquet", "ratings.csv"])
def test_lists_of_every_kind_of_file_equal_those_of_single_users(recommender, histories, tmp_path, kind):
    path, out = written(tmp_path, histories, kind), tmp_path / "lists"
    known = {name: own for name, own in histories.items() if own or kind != "ratings.csv"}
    for number in (1, 2, 3):
        result = recommend_part(recommender, opened(recommender, path), out, Part(number, 3), k=4, block=BLOCK)
        assert result.users == result.computed == len(list(known)[number - 1 :: 3])
    found = lists_of(out)
    assert found.keys() == known.keys()
    for name, own in known.items():
        want = recommender.recommend(recommender.adapt([(f"id:{i}", r) for i, r in own]), k=4)
        assert [item for _, item, _ in found[name]] == [r.id for r in want]
        np.testing.assert_allclose([score for *_, score in found[name]], [r.score for r in want], rtol=1e-5)


@pytest.mark.parametrize("content", ["user_id\n{}\n{}\n", '{{"user_id": {}}}\n{{"user_id": {}}}\n'])
def test_users_of_the_runs_data_are_named_by_their_ids(recommender, tmp_path, content):
    data = small_data()
    names = data.users.ids[3], data.users.ids[7]
    (tmp_path / "ids").write_text(content.format(*names))
    recommend_part(recommender, opened(recommender, tmp_path / "ids"), tmp_path / "lists", k=3)
    found = lists_of(tmp_path / "lists")
    assert tuple(found) == names
    rows = np.flatnonzero(data.user == 7)
    rows = rows[np.argsort(data.time[rows], kind="stable")]
    own = [(f"id:{data.items.ids[i]}", r) for i, r in zip(data.item[rows], data.scale.decimal(data.rating[rows]))]
    want = recommender.recommend(recommender.adapt(own), k=3)
    assert [item for _, item, _ in found[names[1]]] == [r.id for r in want]


def test_one_file_holds_the_lists_in_the_order_of_the_users(recommender, histories, tmp_path):
    path, out = written(tmp_path, histories, "users.jsonl"), tmp_path / "lists.parquet"
    assert recommend_file(recommender, opened(recommender, path), out, k=4, block=BLOCK).users == USERS + 1
    assert list(lists_of(out)) == list(histories)
    assert sorted(tmp_path.iterdir()) == [out, path]
    with pytest.raises(MetarecError, match="is there already"):
        recommend_file(recommender, opened(recommender, path), out)


def test_a_finished_part_is_left_alone_and_a_damaged_block_is_made_again(recommender, histories, tmp_path):
    path, out = written(tmp_path, histories, "users.jsonl"), tmp_path / "lists"
    folder = out / "part-2-of-2"

    def run():
        result = recommend_part(recommender, opened(recommender, path), out, Part(2, 2), k=4, block=BLOCK)
        return result.computed, {file.name: file.read_bytes() for file in folder.iterdir()}

    computed, first = run()
    assert computed == 6
    assert sorted(first) == ["000000.parquet", "000001.parquet", "000002.parquet", "_done.json"]
    written_at = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert run() == (0, first)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == written_at
    # What a machine that lost its power may leave: a block cut short, a temporary folder, no marker.
    (folder / "000001.parquet").write_bytes(first["000001.parquet"][:-20])
    assert run() == (BLOCK, first)
    (folder / "000002.parquet").unlink()
    (folder / ".abc.part").mkdir()
    (folder / ".abc.part" / "000002.parquet").write_bytes(b"PAR1")
    assert run() == (BLOCK, first)
    (folder / "_done.json").write_bytes(b"{")
    assert run() == (0, first)
    (folder / "_done.json").unlink()
    flipped = bytearray(first["000000.parquet"])
    flipped[flipped.index(b"user")] ^= 1
    (folder / "000000.parquet").write_bytes(flipped)
    assert run() == (BLOCK, first)


OTHERS = {
    "k": ({"k": 5}, ["k 4, not 5"]),
    "number of parts": ({"part": Part(1, 3)}, ["parts 2, not 3"]),
    "seen items": ({"exclude_seen": False}, ["exclude_seen True, not False"]),
    "block": ({"block": 3}, ["users of a block 2, not 3"]),
}
"""Another option, and what the message about it must contain."""


@pytest.mark.parametrize(("options", "names"), OTHERS.values(), ids=OTHERS)
def test_lists_of_another_job_are_refused(recommender, histories, tmp_path, options, names):
    users, out = opened(recommender, written(tmp_path, histories, "users.jsonl")), tmp_path / "lists"
    own = {"part": Part(1, 2), "k": 4, "block": BLOCK}
    recommend_part(recommender, users, out, **own)
    with pytest.raises(MetarecError) as error:
        recommend_part(recommender, users, out, **own | options)
    assert_says(str(error.value), "another run, other users or other options", *names, "name another folder")


def test_another_file_and_a_folder_of_other_files_are_refused(recommender, histories, tmp_path):
    path, out = written(tmp_path, histories, "users.jsonl"), tmp_path / "lists"
    recommend_part(recommender, opened(recommender, path), out)
    path.write_text(path.read_text().replace("user 3", "user three"))
    with pytest.raises(MetarecError, match="another file of users"):
        recommend_part(recommender, opened(recommender, path), out)
    for place, message in ((tmp_path, "holds other files"), (path, "is a file: name a folder")):
        with pytest.raises(MetarecError, match=message):
            recommend_part(recommender, opened(recommender, path), place)


def test_a_part_that_runs_is_not_run_twice(recommender, histories, tmp_path):
    users, out = opened(recommender, written(tmp_path, histories, "users.jsonl")), tmp_path / "lists"
    recommend_part(recommender, users, out, Part(1, 2))
    with locks.hold(out / "part-1-of-2" / ".lock", "the part"):
        with pytest.raises(MetarecError, match=rf"part 1/2, is in use by process {os.getpid()}"):
            recommend_part(recommender, users, out, Part(1, 2))
        assert recommend_part(recommender, users, out, Part(2, 2)).users == (USERS + 1) // 2


KILLED = """
import sys, pathlib
from metarec_jax.config.data import DataConfig
from metarec_jax.recommender.batch_parts import recommend_part
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.recommender.users_file import open_users
run, users, out = sys.argv[1:]
recommender = Recommender.load(run)
file = open_users(recommender, DataConfig(source="table", path=users))
print(recommend_part(recommender, file, pathlib.Path(out), k=4, block=1).computed)
"""


def test_after_kill_9_no_user_is_missing_or_there_twice(recommender, histories, tmp_path):
    many = {f"{name} of {n}": own for n in range(8) for name, own in histories.items()}
    path, out = written(tmp_path, many, "users.jsonl"), tmp_path / "lists"
    command = [sys.executable, "-c", KILLED, trained_run(), path, out]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    limit = time.monotonic() + 600
    while not list(out.glob("part-1-of-1/00000[5-9].parquet")) and time.monotonic() < limit:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(list(out.glob("part-1-of-1/*.parquet")))
    assert 5 < done < len(many)
    assert not (out / "part-1-of-1" / "_done.json").exists()
    result = recommend_part(recommender, opened(recommender, path), out, k=4, block=1)
    assert (result.users, result.computed) == (len(many), len(many) - done)
    found = lists_of(out)
    assert found.keys() == many.keys()
    assert {len(own) for own in found.values()} == {4}


LINE = '{"user_id": "a", "history": [{"item_id": 1, "rating": 5}]}\n'
MISTAKES = {
    "not JSON": (LINE + "{oops\n", ["users.jsonl, line 2", "not valid JSON", "one object a line"]),
    "no object": (LINE + "[1]\n", ["users.jsonl, line 2", "no object"]),
    "no id": (LINE + '{"history": []}\n', ["users.jsonl, line 2", "user_id is None"]),
    "a boolean id": (LINE + '{"user_id": true, "history": []}\n', ["users.jsonl, line 2", "user_id is True"]),
    "an id that is no whole number": (LINE.replace('"a"', "1.5"), ["line 1", "user_id is 1.5", "a whole number"]),
    "an item without id": (LINE.replace(": 1,", ": null,"), ["line 1", "'a'", "item_id is None"]),
    "twice": (LINE + "\n" + LINE, ["users.jsonl, line 3", "'a'", "write each user once"]),
    "unknown item": (LINE.replace("1,", '"x y",'), ["users.jsonl, line 1", "'a'", "no item has the id 'x y'"]),
    "rating off the scale": (LINE.replace("5}", "6}"), ["users.jsonl, line 1", "'a'", "rated 6", "1 and 5"]),
    "no rating": (LINE.replace(', "rating": 5', ""), ["line 1", "without 'rating'", "--data.columns.rating NAME"]),
    "a number": (LINE + '{"user_id": 2, "history": 7}\n', ["line 2", "history is 7", "write a list"]),
    "an item twice": (LINE.replace("[{", '[[1, 4], {"item_id": 1, "rating": 4}, {'), ["line 1", "is there twice"]),
    "unknown user": (LINE + '{"user_id": "nobody"}\n', ["users.jsonl, line 2", "no user 'nobody'", "a history"]),
    "a profile that is no text": (LINE.replace("}\n", ', "profile": 3}\n'), ["line 1", "profile is 3"]),
    "another name": (LINE.replace("user_id", "who"), ["no column 'user_id'", "--data.columns.user NAME"]),
}
"""A file of users, and what the message about it must contain."""


@pytest.mark.parametrize(("content", "names"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_file_of_users_is_refused(recommender, tmp_path, content, names):
    path = tmp_path / "users.jsonl"
    path.write_text(content)
    with pytest.raises(MetarecError) as error:
        recommend_part(recommender, opened(recommender, path), tmp_path / "lists")
    assert_says(str(error.value), *names)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("kind", ["map", "floats", "compressed ratings"])
def test_tables_as_other_programs_write_them(recommender, tmp_path, kind):
    path = tmp_path / "users.parquet"
    if kind == "compressed ratings":
        pq.write_table(pa.table({"user_id": ["7", "7"], "item_id": [1, 2], "rating": [5.0, 2.0]}), path)
        path.write_bytes(gzip.compress(path.read_bytes()))
    elif kind == "map":
        history = pa.array([[("1", 5.0), ("2", 2.0)]], pa.map_(pa.string(), pa.float64()))
        pq.write_table(pa.table({"user_id": pa.array(["7"]).dictionary_encode(), "history": history}), path)
    else:
        path = tmp_path / "users.jsonl"
        path.write_text('{"user_id": 7.0, "history": [[1.0, "5"], {"item_id": 2.0, "rating": 2.0}]}')
    recommend_part(recommender, opened(recommender, path), tmp_path / "lists", k=3)
    want = recommender.recommend(recommender.adapt({1: 5, 2: 2}), 3)
    assert [item for _, item, _ in lists_of(tmp_path / "lists")["7"]] == [r.id for r in want]


def test_a_damaged_file_is_named(recommender, histories, tmp_path):
    for kind, what in (("users.jsonl.gz", "gzip"), ("users.parquet", "Parquet")):
        path = written(tmp_path, histories, kind)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(MetarecError, match=rf"{kind}.*{what}"):
            recommend_part(recommender, opened(recommender, path), tmp_path / "lists")


def test_a_file_with_one_user_a_line_is_read_block_by_block(recommender, tmp_path):
    path = tmp_path / "users.jsonl"
    path.write_text("".join(LINE.replace('"a"', str(n)) for n in range(6)) + "{oops\n")
    users = opened(recommender, path)
    blocks = users.blocks(2, 0, 1)
    assert [[user.id for user in users.users(next(blocks))] for _ in range(3)] == [["0", "1"], ["2", "3"], ["4", "5"]]
    with pytest.raises(MetarecError, match="line 7"):
        users.users(next(blocks))


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "-1/4", "1", "a/b", "1/2/3", "", "9999999999/9999999999"])
def test_a_part_that_does_not_exist_is_refused(text):
    with pytest.raises(MetarecError) as error:
        parse_part(text)
    assert_says(str(error.value), "--part", text)


def test_parts_are_counted_from_one():
    assert [parse_part(text) for text in ("1/4", "4/4")] == [Part(1, 4), Part(4, 4)]


def test_a_block_takes_histories_in_every_form_and_names_the_user_of_a_mistake(recommender):
    title = recommender.catalogue.items.titles[0]
    table = recommend_block(recommender, [User("a", {title: 5}), User("b", ()), User("c", [(title, 5)])], 3)
    lists = [table.filter(pa.array([u == name for u in table["user_id"].to_pylist()])) for name in "abc"]
    assert lists[0].drop_columns("user_id") == lists[2].drop_columns("user_id")
    assert table.column_names == ["user_id", "place", "item_id", "score"]
    assert recommend_block(recommender, []).schema == table.schema
    with pytest.raises(MetarecError, match=r"user 'b'.*no item is called"):
        recommend_block(recommender, [User("a", ()), User("b", {"no such title at all": 5})])


def test_the_other_columns_of_a_file_of_users_have_the_names_of_the_options(recommender, tmp_path):
    path = tmp_path / "users.jsonl"
    path.write_text('{"who": 7, "history": [{"what": 1, "stars": 5}], "age": 3}\n')
    columns = dataclasses.replace(DataConfig().columns, user="who", item="what", rating="stars")
    recommend_part(recommender, opened(recommender, path, columns=columns), tmp_path / "lists", k=2)
    want = recommender.recommend(recommender.adapt({1: 5}), 2)
    assert [item for _, item, _ in lists_of(tmp_path / "lists")["7"]] == [r.id for r in want]
