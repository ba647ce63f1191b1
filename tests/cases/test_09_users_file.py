"""`metarec recommend --users`: lists for newcomers from a file, whose ratings need not be those of a training set."""

import pyarrow.parquet as pq
import pytest
from helpers import assert_says
from trained import trained_run

from metarec_jax.cli.main import main


@pytest.fixture
def answer(tmp_path, capsys):
    """Lists for the users of a file with that content: (status, message, table)."""

    def answer(content: str, *options: str):
        file, out = tmp_path / "users.csv", tmp_path / "lists.parquet"
        file.write_text(content, encoding="utf-8")
        status = main(["recommend", str(trained_run()), "--users", str(file), "--out", str(out), "-k", "3", *options])
        return status, capsys.readouterr().err, pq.read_table(out).to_pydict() if status == 0 else None

    return answer


HEADER = "user_id,item_id,rating,timestamp\n"


@pytest.mark.slow
def test_newcomers_may_like_everything(answer, recommender):
    status, _, table = answer(HEADER + "anna,1,5,1\nanna,2,5,2\nben,1,5,1\nben,2,5,2\n")
    assert status == 0
    want = recommender.recommend(recommender.adapt({1: 5, 2: 5}), 3)
    assert table["item_id"] == 2 * [item.id for item in want]


def test_a_rating_between_levels_is_one_in_a_file_too(answer, recommender):
    status, _, table = answer(HEADER + "anna,1,3.7,1\nanna,2,5,2\n")
    assert status == 0
    assert table["item_id"] == [item.id for item in recommender.recommend(recommender.adapt({1: 3.7, 2: 5}), 3)]


def test_other_columns_are_named_with_the_options_of_train(answer):
    columns = ["--data.columns.user", "who", "--data.columns.item", "what", "--data.columns.rating", "stars"]
    status, _, table = answer("who,what,stars\nanna,1,4\nanna,2,5\n", *columns, "--data.columns.time", "")
    assert (status, table["user_id"]) == (0, ["anna"] * 3)


def test_times_may_be_missing(answer):
    status, _, table = answer("user_id,item_id,rating\nanna,1,4\n")
    assert (status, table["user_id"]) == (0, ["anna"] * 3)


def test_a_file_in_another_format_than_the_training_data(answer):
    content = "user_id^item_id^rating\nanna^1^4,5\nanna^1^3,5\n"
    options = ["--data.separator", "^", "--data.decimal", ",", "--data.repeats", "latest"]
    status, _, table = answer(content, *options)
    assert (status, table["user_id"]) == (0, ["anna"] * 3)
    status, message, _ = answer(content, *options[:4])
    assert status == 2
    assert_says(message, "users.csv, line 3", "'anna'", "--data.repeats latest")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("who,item_id,rating,timestamp\nanna,1,4,1\n", ["users.csv", "'user_id'", "--data.columns.user"]),
        ("user_id,item_id\nanna,1\n", ["'rating'", "--data.columns.rating NAME"]),
        (HEADER + "anna,1,4,1\nanna,999,5,2\n", ["'999'", "remove"]),
        (HEADER + "anna,1,6,1\n", ["users.csv, line 2", "6", "1 to 5"]),
    ],
)
def test_a_message_names_the_options_that_recommend_has(answer, content, names):
    status, message, _ = answer(content)
    assert status == 2
    assert_says(message, *names)
    assert "--data.kind" not in message


def test_parts_are_written_into_a_folder_and_a_finished_one_says_so(tmp_path, capsys):
    (tmp_path / "users.jsonl").write_text("".join(f'{{"user_id": {n}, "history": [[1, 5]]}}\n' for n in range(5)))
    out = tmp_path / "lists"

    def part(text: str) -> str:
        users = ["--users", str(tmp_path / "users.jsonl"), "--out", str(out), "--part", text, "-k", "3"]
        assert main(["recommend", str(trained_run()), *users]) == 0
        return capsys.readouterr().out

    assert_says(part("1/2"), "3 users", f"{out}, part 1/2", "users/s")
    assert_says(part("2/2"), "2 users", "part 2/2")
    assert_says(part("1/2"), "3 users", "part 1/2 was finished already")
    assert sorted(pq.read_table(out)["user_id"].to_pylist()) == sorted(3 * ["0", "1", "2", "3", "4"])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--out", "lists", "--part", "0/4"], ["--part 0/4", "1/4 to 4/4"]),
        (["--out", "lists", "--part", "5/4"], ["--part 5/4", "1/4 to 4/4"]),
        (["--out", "lists", "--part", "two"], ["--part 'two'", "such as 3/8"]),
        (["--out", "lists.parquet", "--part", "1/4"], ["lists.parquet is one file", "name a folder"]),
        (["--part", "1/4"], ["--out FOLDER"]),
        (["--part", "1/2"], ["--users FILE"]),
        (["--out", "lists", "--why"], ["--why", "leave it out"]),
        (["--out", "lists", "-k", "100000"], ["k is 100000"]),
        (["--out", "users.csv"], ["users.csv is a file", "name a folder"]),
    ],
)
def test_a_part_or_a_place_that_does_not_fit_is_refused(tmp_path, monkeypatch, capsys, options, names):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.csv").write_text(HEADER + "anna,1,5,1\n")
    users = [] if options == ["--part", "1/2"] else ["--users", "users.csv"]
    assert main(["recommend", str(trained_run()), *users, *options]) == 2
    assert_says(capsys.readouterr().err, *names)
    assert [file.name for file in tmp_path.iterdir()] == ["users.csv"]
