"""The run folder: made once, opened by anyone, refused with a reason."""

import builtins
import dataclasses
import errno
import json
import os

import pytest

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.config.run import Config, preset
from metarec_jax.core.errors import MetarecError
from metarec_jax.train import run_folder


@pytest.fixture
def run(tmp_path):
    return run_folder.create(tmp_path / "run", preset("synthetic"))


def document(run):
    return json.loads((run.folder / "config.json").read_text(encoding="utf-8"))


def rewrite(run, text):
    (run.folder / "config.json").write_text(text, encoding="utf-8")


def everything_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_run_is_opened_with_the_config_that_it_was_made_with(tmp_path):
    config = dataclasses.replace(Config(), seed=7, episodes=EpisodeConfig(buckets=(5, 90), order="time"))
    made = run_folder.create(tmp_path / "deep" / "run", config)
    opened = run_folder.open_run(tmp_path / "deep" / "run")
    assert opened.config == made.config == config
    assert everything_in(made.folder) == ["config.json"]
    assert document(made)["layout"] == run_folder.LAYOUT


# What cannot be made


def test_a_run_is_not_made_over_another(run):
    before = document(run)
    with pytest.raises(MetarecError) as caught:
        run_folder.create(run.folder, dataclasses.replace(run.config, seed=1))
    assert str(caught.value) == (
        f"{run.folder} already holds a run: continue it with `metarec train --resume {run.folder}`, "
        "or give another folder with --out"
    )
    assert document(run) == before


def test_a_run_is_made_beside_files_that_are_there(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run_folder.create(tmp_path, Config())
    assert everything_in(tmp_path) == ["config.json", "notes.txt"]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(MetarecError, match=rf"{tmp_path}/file.*: cannot be written: .*name another folder"):
            run_folder.create(folder, Config())
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_leaves_no_half_of_a_run(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(MetarecError, match=r"config\.json: cannot be written: No space left on device: free some"):
            run_folder.create(tmp_path / "run", Config())
    assert everything_in(tmp_path / "run") == []
    assert run_folder.create(tmp_path / "run", Config()).config == Config(), (
        "once there is space, the same folder will do"
    )


# What cannot be opened


@pytest.mark.parametrize("place", ["missing", "empty", "file"])
def test_what_is_no_run_is_refused_with_how_to_make_one(tmp_path, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(MetarecError) as caught:
        run_folder.open_run(tmp_path / place)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / place} is not a run folder: {tmp_path / place}/config.json does not exist")
    assert f"metarec train --out {tmp_path / place}" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: not valid JSON \("),
        ('{"layout": 1,\n "seed": 0', r"line 2: not valid JSON \("),
        ("[1, 2]", r"layout version None, and this version of metarec_jax reads 1, 2, 3, 4: train it again"),
        ("{}", r"layout version None"),
        (
            '{"layout": 5}',
            r"layout version 5, and this version of metarec_jax reads 1, 2, 3, 4: train it again, or use the",
        ),
        ('{"layout": "1"}', r"layout version '1'"),
        ('{"layout": 1, "sead": 3}', r"there is no option 'sead'; did you mean 'seed'\?"),
        ('{"layout": 1, "seed": "3"}', r"seed is '3' \(str\); it must be of type int"),
        ('{"layout": 1, "train": {"epochs": 0}}', r"train\.epochs is 0; it must be at least 1"),
        ('{"layout": 1, "train": 3}', r"train must be an object"),
    ],
)
def test_a_config_that_is_none_is_refused_by_file_and_value(run, text, message):
    rewrite(run, text)
    with pytest.raises(MetarecError, match=message) as caught:
        run_folder.open_run(run.folder)
    assert str(caught.value).startswith(f"{run.folder}/config.json")


def test_a_config_that_is_no_text_is_refused(run):
    (run.folder / "config.json").write_bytes(b'{"layout": 1, "seed": "\xff\xfe"}')
    with pytest.raises(MetarecError, match=r"config\.json: byte 23 is not UTF-8"):
        run_folder.open_run(run.folder)


# metrics.jsonl


def lines(*epochs):
    return [{"epoch": epoch, "step": 10 * epoch, "train_loss": epoch / 3} for epoch in epochs]


def test_metrics_are_read_as_they_were_written(run):
    assert list(run.read_metrics()) == []
    for line in lines(1, 2, 3):
        run.append_metrics(line)
    assert list(run.read_metrics()) == lines(1, 2, 3)
    assert [json.loads(text) for text in run.metrics.read_text().splitlines()] == lines(1, 2, 3)


@pytest.mark.parametrize("epochs", [0, 1, 2, 5])
def test_lines_of_lost_work_are_dropped(run, epochs):
    for line in lines(1, 2, 3):
        run.append_metrics(line)
    run.keep_metrics(10 * epochs)
    assert list(run.read_metrics()) == lines(*range(1, min(epochs, 3) + 1))
    run.append_metrics(lines(epochs + 1)[0])
    assert list(run.read_metrics())[-1] == lines(epochs + 1)[0]
    assert everything_in(run.folder) == ["config.json", "metrics.jsonl"]


def test_a_line_cut_short_anywhere_ends_the_lines_and_is_written_over(run):
    for line in lines(1, 2):
        run.append_metrics(line)
    whole = run.metrics.read_text()
    first = whole.index("\n") + 1
    for end in range(first, len(whole) - 1):
        run.metrics.write_text(whole[:end])
        assert list(run.read_metrics()) == lines(1), whole[:end]
        run.keep_metrics(10)
        run.append_metrics(lines(2)[0])
        assert run.metrics.read_text() == whole
    run.metrics.write_text(whole[:-1])  # only the end of the line is missing
    run.keep_metrics(20)
    run.append_metrics(lines(3)[0])
    assert list(run.read_metrics()) == lines(1, 2, 3)


def test_a_full_disk_is_said_when_metrics_are_written(run, monkeypatch):
    run.append_metrics(lines(1)[0])

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", lambda *_, **__: Full())
        with pytest.raises(MetarecError, match=r"metrics\.jsonl: cannot be written: No space left on device"):
            run.append_metrics(lines(2)[0])
    assert list(run.read_metrics()) == lines(1)


def test_folders_for_tables_and_plots_are_made_when_they_are_asked_for(run):
    assert run.tables.is_dir()
    assert run.plots.is_dir()
    assert everything_in(run.folder) == ["config.json", "plots", "tables"]
