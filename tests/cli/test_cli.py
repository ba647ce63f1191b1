"""The command line in this process: options, results, and that every mistake ends in one message and leaves nothing."""

import dataclasses
import errno
import json
import os
import shutil
import types
import typing
from pathlib import Path
from typing import Literal

import pytest
from trained import small_config, small_data, trained_run

import metarec_jax
from metarec_jax.cli import main, options
from metarec_jax.cli.options import TrainArguments
from metarec_jax.config.json_io import to_json
from metarec_jax.config.run import Config, preset
from metarec_jax.core import atomic_files
from metarec_jax.train import loop


@pytest.fixture(autouse=True)
def quiet_setup(monkeypatch, tmp_path):
    """An own cache folder, and a working folder that starts empty."""
    monkeypatch.setenv("METAREC_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def metarec(capsys):
    """Runs a command; returns its status, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main.main([str(argument) for argument in arguments])
        except SystemExit as stop:  # tyro's own errors, and --help
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def refused(metarec):
    """Runs a command that must be refused; returns the one message."""

    def run(*arguments: object) -> str:
        before = contents(Path.cwd())
        status, out, err = metarec(*arguments)
        assert (status, out) == (2, "")
        messages = [line for line in err.splitlines() if line.startswith("metarec: ")]
        assert len(messages) == 1
        assert "Traceback" not in err
        assert contents(Path.cwd()) == before
        return err[err.index("metarec: ") + len("metarec: ") :].strip()

    return run


def contents(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in folder.rglob("*")}


@pytest.fixture
def run_folder(tmp_path) -> Path:
    return shutil.copytree(trained_run(), tmp_path / "run")


# Options


def changed(name, hint, value):
    """Another value that the option may have (the same, where it has no other)."""
    if typing.get_origin(hint) is Literal:
        return next((choice for choice in typing.get_args(hint) if choice != value), value)
    match value:
        case bool():
            return not value
        case int():
            return value - 1 if name == "max_support" else value + 1
        case float():
            return value / 2
        case tuple():
            return (91, 92) if isinstance(value[0], int) else ("output/.*",)
        case _:
            return value + "x"


def every_option(config, prefix="--"):
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from every_option(value, f"{prefix}{name}.")
        else:
            yield prefix, name, hint, value


OPTIONS = list(every_option(Config()))


@pytest.mark.parametrize(
    ("prefix", "name", "hint", "value"), OPTIONS, ids=[option[0] + option[1] for option in OPTIONS]
)
def test_every_option_of_a_config_can_be_given(prefix, name, hint, value):
    new = changed(name, hint, value)
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        arguments = [f"{prefix}{dashed}" if new else f"{prefix}no-{dashed}"]
    else:
        arguments = [f"{prefix}{dashed}", *map(str, new if isinstance(new, tuple) else [new])]
    needed = {"--encoder.train": "all"} if name == "shards" else {}  # only what is trained is split
    arguments += [part for option in needed.items() for part in option]
    config = options.parse(TrainArguments, "train", arguments, TrainArguments()).config
    found = {p + n: v for p, n, _, v in every_option(config)}
    assert found == {p + n: v for p, n, _, v in OPTIONS} | needed | {prefix + name: new}


def test_options_are_taken_from_the_command_line_then_the_file_then_the_preset(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"train": {"epochs": 7, "rate": 0.5}}))
    arguments = ["--preset", "synthetic", "--config", str(path), "--train.epochs", "8"]
    name, base = options.starting_config("train", arguments)
    config = options.parse(TrainArguments, "train", arguments, TrainArguments(config=base)).config
    assert name == "mine"
    assert (config.train.epochs, config.train.rate) == (8, 0.5)
    assert config.learner == preset("synthetic").learner


def test_the_config_of_a_run_can_be_given_again():
    _, config = options.starting_config("train", ["--config", str(trained_run() / "config.json")])
    assert config == small_config()


def test_a_protocol_fixes_the_episodes(refused):
    _, config = options.starting_config("evaluate", ["--protocol", "recbole-metarec", "--preset", "movielens-1m"])
    assert (config.episodes.min_ratings, config.episodes.max_ratings, config.episodes.query) == (13, 100, 10)
    assert config.train == preset("movielens-1m").train
    message = refused("evaluate", "--protocol", "recbole-metarec", "--episodes.query", 5)
    assert message.startswith("protocol recbole-metarec has episodes.query 10, and not 5: leave out that option")


def test_free_folders_are_counted_up(tmp_path):
    assert options.free_folder("x", tmp_path) == tmp_path / "x-1"
    (tmp_path / "x-1").mkdir()
    (tmp_path / "x-2").write_text("")
    assert options.free_folder("x", tmp_path) == tmp_path / "x-3"


@pytest.mark.parametrize("command", ["train", "evaluate", "recommend", "demo", "doctor"])
def test_every_command_explains_itself(metarec, command):
    status, out, err = metarec(command, "--help")
    assert (status, err) == (0, "")
    assert f"metarec {command}" in out
    assert command in metarec("--help")[1]


def test_help_fits_a_screen(metarec):
    status, out, _ = metarec("--help")
    assert status == 0
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) <= 100


def test_public_names_are_where_the_package_says():
    for name in metarec_jax.__all__:
        assert not isinstance(getattr(metarec_jax, name), types.ModuleType)
    assert set(metarec_jax.__all__) == set(metarec_jax._HOMES) <= set(dir(metarec_jax))
    assert metarec_jax.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = metarec_jax.nonsense


# Results


def test_recommend_prints_json(metarec):
    before = contents(trained_run())
    ratings = ["--rate", "id:3=5", "--rate", "id:4=1.5"]
    status, out, err = metarec("recommend", trained_run(), *ratings, "-k", 4, "--item-text", "bagabe", "--json")
    assert (status, err) == (0, "")
    tree = json.loads(out)
    assert [(r["id"], r["rating"]) for r in tree["rated"]] == [("3", 5.0), ("4", 1.5)]
    assert len(tree["recommended"]) == 4
    assert {r["id"] for r in tree["recommended"]}.isdisjoint({"3", "4"})
    assert [r["score"] for r in tree["recommended"]] == sorted((r["score"] for r in tree["recommended"]), reverse=True)
    assert tree["item_texts"][0]["text"] == "bagabe"
    assert 1 <= tree["item_texts"][0]["score"] <= 5
    assert contents(trained_run()) == before


def test_recommend_prints_tables(metarec):
    title = small_data().items.titles[6]
    status, out, _ = metarec("recommend", trained_run(), "--rate", f"{title.upper()}=5", "-k", 120, "--include-seen")
    assert status == 0
    rated, recommended = out.split("Recommended")
    assert title in rated
    assert all(title in recommended for title in small_data().items.titles)
    assert "…" not in out


def test_train_then_resume(metarec):
    status, out, err = metarec(
        "train", "--config", trained_run() / "config.json", "--train.epochs", 1, "--out", "a/run", "--json"
    )
    assert status == 0
    assert "epoch 1: training loss" in err
    tree = json.loads(out)
    assert tree["run"] == "a/run"
    assert (tree["epoch"], tree["finished"]) == (1, True)
    assert {p.name for p in Path("a/run").iterdir()} == {
        "config.json", "catalogue.parquet", "tables.safetensors", "metrics.jsonl", "checkpoints", "plots",
        "parameters.safetensors",
    }  # fmt: skip
    assert Path(tree["plot"]).stat().st_size > 1000
    # A run that was killed before its items were written is made whole again.
    Path("a/run/catalogue.parquet").unlink()
    status, out, _ = metarec("train", "--resume", "a/run")
    assert status == 0
    assert "trained 1 epochs" in out
    assert Path("a/run/catalogue.parquet").exists()


# Mistakes


TABLES = {
    "wrong columns": (b"user,item,stars\n1,2,3\n", "f.csv", "no column 'user_id'"),
    "bad bytes": (b"user_id,item_id,rating\n1,2,3\n1,\xff,3\n", "f.csv, line 3", "UTF-8"),
    "text for a number": (b"user_id,item_id,rating\n1,2,3\n1,3,good\n", "f.csv, line 3", "'good'"),
    "NaN": (b"user_id,item_id,rating\n1,2,3\n1,3,nan\n", "f.csv, line 3", "nan"),
    "a repeated row": (b"user_id,item_id,rating\n1,2,3\n1,3,4\n1,2,5\n", "f.csv, line 4", "already in"),
    "an empty file": (b"", "f.csv", "empty"),
    "a header alone": (b"user_id,item_id,rating\n", "f.csv", "holds no interaction"),
    "few interactions": (b"user_id,item_id,rating\n1,2,3\n2,2,4\n", "0 of 2 users have at least 13", "min-ratings"),
}


@pytest.mark.parametrize(("content", "place", "word"), TABLES.values(), ids=TABLES.keys())
def test_a_file_with_a_mistake_is_refused_before_anything_is_written(refused, content, place, word):
    Path("f.csv").write_bytes(content)
    message = refused("train", "--data.path", "f.csv", "--data.columns.time", "", "--encoder.path", "random")
    assert place in message
    assert word in message


def test_unknown_items_and_items_without_text_are_refused(refused):
    Path("f.csv").write_text("user_id,item_id,rating\n1,2,3\n1,9,4\n")
    Path("i.csv").write_text("item_id,text\n2,two\n3,\n")
    arguments = ["train", "--data.path", "f.csv", "--data.items-path", "i.csv", "--data.columns.time", ""]
    assert "item '3' has no text" in refused(*arguments)
    Path("i.csv").write_text("item_id,text\n2,two\n3,three\n")
    message = refused(*arguments)
    assert "f.csv, line 3" in message
    assert "item '9' is not in" in message


def test_ratings_off_the_scale_are_refused(refused):
    folder = Path("ml-1m")
    folder.mkdir()
    (folder / "ratings.dat").write_text("1::1::3::10\n1::2::7::11\n")
    (folder / "movies.dat").write_text("1::Tin Moon (1971)::Drama\n2::Tin Roofs (1980)::Comedy\n")
    (folder / "users.dat").write_text("1::F::25::3::12345\n")
    message = refused("train", "--preset", "movielens-1m", "--data.path", folder, "--out", "run")
    assert "ratings.dat, line 2" in message
    assert "7" in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], "there is no command 'nosuch' The commands are"),
        (["recomend"], "did you mean 'recommend'?"),
        (["train", "--preset", "movies"], "no preset is called 'movies'; there are movielens-100k"),
        (["train", "--config", "none.json"], "none.json: cannot be read (No such file or directory)"),
        (["train", "--data.path", "none"], "--data.path none: there is no such file or folder"),
        (["train", "--preset", "synthetic", "--encoder.path", "no/such/folder"], "there is no folder no/such/folder"),
        (["train", "--train.epochs", "0"], "train.epochs is 0; it must be at least 1"),
        (["train", "--updater.rate", "nan"], "updater.rate is nan; it must be a finite number above 0"),
        (["train", "--learner.head", "click"], "learner.head is 'click' but data.kind is 'rating'"),
        (["train", "--resume", "nowhere"], "nowhere is not a run folder"),
        (["train", "--resume", "nowhere", "--train.epochs", "3"], "--resume takes no option but --json"),
        (["train", "--resume", "nowhere", "--preset", "synthetic"], "--resume takes no option but --json"),
        (["evaluate", "nowhere"], "nowhere is not a run folder"),
        (["evaluate", "nowhere", "--preset", "synthetic"], "is evaluated with its own options"),
        (["evaluate", "--protocol", "mine"], "no protocol is called 'mine'; there are melu, recbole-metarec"),
        (["evaluate", "nowhere", "--seeds", "-1"], "--seeds is -1; it must be at least 1"),
        (["recommend", "nowhere"], "nowhere is not a run folder"),
        (["recommend", "nowhere", "--rate", "Some Film"], "--rate 'Some Film': write TITLE=RATING"),
        (["recommend", "nowhere", "--rate", "Some Film=good"], "--rate 'Some Film=good': write TITLE=RATING"),
    ],
)
def test_impossible_arguments_are_refused(refused, arguments, words):
    assert words in refused(*arguments)


def test_what_tyro_refuses_has_the_same_status(metarec):
    for arguments in (
        ["train", "--trian.epochs", 3],
        ["train", "--train.epochs", "x"],
        ["recommend"],
        ["train", "--out"],
    ):
        status, out, err = metarec(*arguments)
        assert (status, out) == (2, "")
        assert "Traceback" not in err


def test_no_command_is_a_mistake(metarec):
    status, out, err = metarec()
    assert (status, out) == (2, "")
    assert err.startswith("usage: metarec COMMAND")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "bad.json, line 1: not valid JSON"),
        (b"[]", "bad.json: the file must be an object"),
        (b'{"train": {"epoch": 3}}', "bad.json: there is no option 'train.epoch'; did you mean 'epochs'?"),
        (b'{"train": {"epochs": "3"}}', "bad.json: train.epochs is '3'; it must be of type int"),
        (b'{"train": {"epochs": -3}}', "train.epochs is -3; it must be at least 1"),
        (b"\xff", "bad.json: byte 0 is not UTF-8"),
    ],
)
def test_a_config_file_with_a_mistake_is_refused(refused, content, words):
    Path("bad.json").write_bytes(content)
    assert words in refused("train", "--config", "bad.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rate", "Nobody Knows This=3"], "no item is called 'Nobody Knows This'; the nearest are: "),
        (["--rate", "id:999=3"], "no item has the id '999'"),
        (["--rate", "id:3=6"], "'id:3' is rated 6.0; ratings lie between 1 and 5"),
        (["--rate", "id:3=nan"], "'id:3' is rated nan; ratings lie between 1 and 5"),
        (["--rate", "id:3=4", "--rate", "id:3=5"], "'id:3' is there twice"),
        (["-k", "0"], "k is 0; it must lie between 1 and 120"),
        (["--profile", "a nurse"], "this run reads none: its learner.user_side is 'description'"),
    ],
)
def test_a_recommendation_that_cannot_be_made_is_refused(refused, arguments, words):
    assert words in refused("recommend", trained_run(), *arguments)


def test_a_folder_that_holds_a_run_is_never_overwritten(refused, run_folder):
    before = contents(run_folder)
    message = refused("train", "--preset", "synthetic", "--out", run_folder)
    assert "already holds a run: continue it with `metarec train --resume" in message
    assert contents(run_folder) == before


def test_a_run_is_not_resumed_on_other_data(refused, run_folder):
    document = json.loads((run_folder / "config.json").read_text())
    document["episodes"]["test"] = 0.3  # other training users, so other statistics
    (run_folder / "config.json").write_text(json.dumps(document))
    assert "no longer those that the run began with" in refused("train", "--resume", run_folder)


def test_a_file_in_the_way_of_the_run_folder_is_named(refused):
    Path("file").write_text("")
    for out in ("file", "file/run", "file/a/run"):
        message = refused("train", "--preset", "synthetic", "--out", out)
        assert message == f"{out}: cannot be written: a part of the path is a file, not a folder: name another folder"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
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


def test_a_full_disk_during_training_is_explained(refused, monkeypatch):
    def full(run, experiment, *, reporter):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run.metrics))

    monkeypatch.setattr(loop, "fit", full)
    message = refused("train", "--resume", trained_run())
    assert "metrics.jsonl: No space left on device: free some space" in message


def test_config_round_trip_of_presets(tmp_path):
    for name in ("movielens-100k", "movielens-1m", "synthetic"):
        path = tmp_path / f"{name}.json"
        path.write_text(to_json(preset(name)))
        assert options.starting_config("train", ["--config", str(path)]) == (name, preset(name))
