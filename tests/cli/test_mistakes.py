"""Every mistake ends in one message, which names the value, the place and the remedy, and leaves nothing behind."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import assert_says
from trained import trained_run
from training import Watch

from metarec_jax.core import atomic_files
from metarec_jax.core.errors import MetarecError
from metarec_jax.train import start
from metarec_jax.train.run_folder import open_run

pytestmark = pytest.mark.usefixtures("empty_folder")

FILES = {
    "{.json": b"{", "[].json": b"[]", "bytes.json": b"\xff", "file": b"", "failing.py": b"1 / 0",
    "plugin.json": b'{"layout": 2, "plugins": ["of_somebody"]}',
}  # fmt: skip
"""Files in the working folder of the tests in `MISTAKES`."""
RATINGS = b"user_id,item_id,rating\n"
TABLES = {
    "wrong columns": (b"user,item,stars\n1,2,3\n", ["f.csv", "no column 'user_id'"]),
    "bad bytes": (RATINGS + b"1,2,3\n1,\xff,3\n", ["f.csv, line 3", "UTF-8"]),
    "text for a number": (RATINGS + b"1,2,3\n1,3,good\n", ["f.csv, line 3", "'good'"]),
    "NaN": (RATINGS + b"1,2,3\n1,3,nan\n", ["f.csv, line 3", "nan"]),
    "a repeated row": (RATINGS + b"1,2,3\n1,3,4\n1,2,5\n", ["f.csv, line 4", "already in"]),
    "an empty file": (b"", ["f.csv", "empty"]),
    "a header alone": (RATINGS, ["f.csv", "holds no interaction"]),
    "few interactions": (RATINGS + b"1,2,3\n2,2,4\n", ["0 of 2 users have at least 13", "min-ratings"]),
}
"""A file of ratings, and what the message about it must contain."""


@pytest.mark.parametrize(("content", "names"), TABLES.values(), ids=TABLES)
def test_a_file_with_a_mistake_is_refused_before_anything_is_written(refused, content, names):
    Path("f.csv").write_bytes(content)
    message = refused("train", "--data.path", "f.csv", "--data.columns.time", "", "--encoder.path", "random")
    assert_says(message, *names)


def test_unknown_items_are_refused(refused):
    Path("f.csv").write_text("user_id,item_id,rating\n1,2,3\n1,9,4\n")
    arguments = ["train", "--data.path", "f.csv", "--data.items-path", "i.csv", "--data.columns.time", ""]
    Path("i.csv").write_text("item_id,text\n2,two\n3,three\n")
    message = refused(*arguments)
    assert_says(message, "f.csv, line 3", "item '9' is not in")


def test_ratings_off_the_scale_are_refused(refused):
    folder = Path("ml-1m")
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::1::3::10\n1::2::7::11\n")
    (folder / "movies.dat").write_text("1::Tin Moon (1971)::Drama\n2::Tin Roofs (1980)::Comedy\n")
    (folder / "users.dat").write_text("1::F::25::3::12345\n")
    message = refused("train", "--preset", "movielens-1m", "--data.path", folder, "--out", "run")
    assert_says(message, "ratings.dat, line 2", "7")


MISTAKES = {
    ("nosuch",): ["'nosuch'", "commands are demo, inspect, data, pretrain"],
    ("recomend",): ["'recomend'", "did you mean 'recommend'?"],
    ("train", "--preset", "movies"): ["preset", "'movies'", "there are movielens-100k"],
    ("train", "--config", "none.json"): ["--config", "none.json", "No such file or directory"],
    ("train", "--config", "{.json"): ["{.json, line 1", "not valid JSON"],
    ("train", "--config", "[].json"): ["[].json", "must be an object"],
    ("train", "--config", "bytes.json"): ["bytes.json", "byte 0 is not UTF-8"],
    ("train", "--data.path", "none"): ["--data.path", "none", "no such file"],
    ("train", "--preset", "synthetic", "--encoder.path", "no/such/folder"): ["no folder no/such/folder"],
    ("train", "--train.epochs", "0"): ["train.epochs is 0", "at least 1"],
    ("train", "--updater.rate", "nan"): ["updater.rate is nan", "a finite number above 0"],
    ("train", "--learner.head", "click"): ["learner.head is 'click'", "data.kind is 'rating'"],
    ("train", "--resume", "nowhere"): ["nowhere", "not a run folder"],
    ("train", "--resume", "nowhere", "--train.epochs", "3"): ["--resume", "no option but --json"],
    ("train", "--resume", "nowhere", "--preset", "synthetic"): ["--resume", "no option but --json"],
    ("train", "--resume", "nowhere", "--out", "here"): ["--resume", "no option but --json"],
    ("pretrain", "--resume", "nowhere", "--steps", "3"): ["--resume", "no option but --json"],
    ("train", "--plugin", "no_such_module"): ["--plugin no_such_module", "no module 'no_such_module'"],
    ("--plugin", "failing", "train"): ["--plugin failing", "ZeroDivisionError"],
    ("train", "--config", "plugin.json"): ["plugin.json", "'of_somebody'", "--plugin of_somebody", "trust"],
    ("tune", "--space", "{.json"): ["--space", "{.json, line 1", "not valid JSON"],
    ("tune", "--trials", "0"): ["--trials is 0", "at least 1"],
    ("evaluate", "nowhere"): ["nowhere", "not a run folder"],
    ("evaluate", "nowhere", "--preset", "synthetic"): ["nowhere", "its own options"],
    ("evaluate", "nowhere", "--seeds", "-1"): ["--seeds is -1", "at least 1"],
    ("evaluate", "--metrics", "mine"): ["metrics", "'mine'", "own, melu, recbole"],
    ("compare", "a", "b", "--metrics", "mine"): ["metrics", "'mine'", "own, melu, recbole"],
    ("evaluate", "--protocol", "mine"): ["protocol", "'mine'", "melu, recbole-metarec"],
    ("evaluate", "--protocol", "recbole-metarec", "--episodes.query", 5): ["recbole-metarec", "episodes.query 10", "5"],
    ("evaluate", "--protocol", "melu", "--split.kind", "users"): ["protocol melu", "split.kind melu", "users"],
    ("evaluate", "--protocol", "melu", "--episodes.query", "5"): ["protocol melu", "episodes.query 10", "5"],
    ("evaluate", "--protocol", "melu", "--episodes.buckets", "20"): ["at most 90", "20", "episodes.buckets end at 90"],
    ("evaluate", "--protocol", "time", "--episodes.max-ratings", "90"): ["episodes.max_ratings 0", "90"],
    ("evaluate", "--split.supports", "3", "1"): ["split.supports is (3, 1)", "ascending"],
    ("recommend", "nowhere"): ["nowhere", "not a run folder"],
    ("recommend", "nowhere", "--rate", "Some Film"): ["--rate 'Some Film'", "TITLE=RATING"],
    ("recommend", "nowhere", "--rate", "Some Film=good"): ["--rate 'Some Film=good'", "TITLE=RATING"],
    ("recommend", "nowhere", "--out", "x.parquet"): ["--users", "--out"],
    ("interview", "nowhere", "--questions", "0"): ["--questions is 0", "at least 1"],
    ("aot", "--encoder", "bert-9b"): ["--encoder", "'bert-9b'", "minilm, bert-base"],
    ("bench", "--rounds", "0"): ["--rounds is 0", "at least 1"],
    ("train", "--preset", "synthetic", "--out", "file"): ["file", "not a folder", "name another folder"],
    ("train", "--preset", "synthetic", "--out", "file/run"): ["file/run", "not a folder", "name another folder"],
    ("train", "--preset", "synthetic", "--out", "file/a/run"): ["file/a/run", "not a folder", "name another folder"],
}
"""Arguments, and what the message about them must contain."""


@pytest.mark.parametrize(("arguments", "names"), MISTAKES.items(), ids=[" ".join(map(str, a)) for a in MISTAKES])
def test_impossible_arguments_are_refused(refused, arguments, names):
    for file, content in FILES.items():
        Path(file).write_bytes(content)
    message = refused(*arguments)
    assert_says(message, *names)


OPTIONS = {
    '{"train": {"epoch": 3}}': ["'train.epoch'", "did you mean 'epochs'?"],
    '{"train": {"epochs": "3"}}': ["train.epochs is '3'", "of type int"],
    '{"train": {"epochs": -3}}': ["train.epochs is -3", "at least 1"],
}
"""A config file, and what the message about it must contain."""


@pytest.mark.parametrize(("content", "names"), OPTIONS.items())
def test_a_config_file_with_a_wrong_option_is_refused(refused, content, names):
    Path("bad.json").write_text(content)
    message = refused("train", "--config", "bad.json")
    assert_says(message, "bad.json", *names)


REQUESTS = {
    ("--rate", "Nobody Knows This=3"): ["'Nobody Knows This'", "the nearest are: "],
    ("--rate", "id:999=3"): ["the id '999'"],
    ("--rate", "id:3=6"): ["'id:3' is rated 6.0", "between 1 and 5"],
    ("--rate", "id:3=nan"): ["'id:3' is rated nan", "between 1 and 5"],
    ("--rate", "id:3=4", "--rate", "id:3=5"): ["'id:3'", "twice"],
    ("-k", "0"): ["k is 0", "between 1 and 120"],
    ("--profile", "a nurse"): ["learner.user_side is 'description'"],
}
"""Arguments of `metarec recommend RUN`, and what the message about them must contain."""


@pytest.mark.parametrize(("arguments", "names"), REQUESTS.items(), ids=map(" ".join, REQUESTS))
def test_a_recommendation_that_cannot_be_made_is_refused(refused, arguments, names):
    message = refused("recommend", trained_run(), *arguments)
    assert_says(message, *names)


@pytest.fixture
def run_folder(tmp_path) -> Path:
    return shutil.copytree(trained_run(), tmp_path / "run")


def test_a_folder_that_holds_a_run_is_never_overwritten(refused, contents, run_folder):
    before = contents(run_folder)
    message = refused("train", "--preset", "synthetic", "--out", run_folder)
    assert "already holds a run: continue it with `metarec train --resume" in message
    assert contents(run_folder) == before


def test_a_run_is_not_resumed_on_other_data(refused, run_folder):
    document = json.loads((run_folder / "config.json").read_text())
    document["seed"] = 1  # of the synthetic ratings, too
    (run_folder / "config.json").write_text(json.dumps(document))
    assert "no longer what the run began with" in refused("train", "--resume", run_folder)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "No space left on device: free some space"),
        (errno.EACCES, "there is no permission to write there"),
        (errno.EROFS, "the file system is read-only"),
    ],
)
@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_run_folder_that_cannot_be_written_is_removed_again(refused, monkeypatch, code, words, written):
    """The config, the embeddings and the catalogue are written in this order: each in turn fails."""
    done = []

    def replace(source, target):
        if Path(target).parent.name == "run":
            done.append(target)
            if len(done) > written:
                raise OSError(code, os.strerror(code), str(target))
        os.rename(source, target)

    monkeypatch.setattr(atomic_files.os, "replace", replace)
    message = refused("train", "--config", trained_run() / "config.json", "--out", "run")
    assert len(done) == written + 1
    assert words in message
    assert not Path("run").exists()


def test_a_full_disk_during_training_is_explained(tmp_path):
    """The file of metrics is on a full device from the first step on."""
    run, experiment = start.start(open_run(trained_run()).config, tmp_path / "run")

    def fill(step):
        run.metrics.unlink(missing_ok=True)
        run.metrics.symlink_to("/dev/full")

    with pytest.raises(
        MetarecError, match=r"metrics\.jsonl: cannot be written: No space left on device: free some space"
    ):
        start.fit(run, experiment, reporter=Watch(on_step=fill))
