"""A run is started on data and an encoder, and resumed on the same ones alone."""

import dataclasses
import json
import shutil

import pytest
from training import small_config, small_experiment, write_table

from metarec_jax.config.data import DataConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import random_encoder, save
from metarec_jax.train.start import resume, start


def test_a_run_is_not_resumed_on_other_data_or_with_another_encoder(tmp_path):
    table, encoder, folder = tmp_path / "ratings.csv", tmp_path / "encoder", tmp_path / "run"
    config = dataclasses.replace(
        small_config(),
        data=DataConfig(source="table", path=str(table), cache=str(tmp_path)),
        encoder=EncoderConfig(path=str(encoder)),
    )
    data = small_experiment(config).data
    write_table(data, table)
    save(random_encoder(0), encoder)
    start(config, folder)
    kept = (folder / "inputs.json").read_text()

    def refused(what):
        says = rf"inputs\.json: {what}: no longer what the run began with: bring that back"
        with pytest.raises(MetarecError, match=says):
            resume(folder)

    rating = data.rating.copy()
    rating[0] = 6 - rating[0] if rating[0] != 3 else 4
    write_table(dataclasses.replace(data, rating=rating), table)
    refused("the ratings")
    write_table(data, table)
    shutil.rmtree(encoder)
    save(random_encoder(1), encoder)
    refused("the encoder")
    shutil.rmtree(encoder)
    save(random_encoder(0), encoder)
    run, _ = resume(folder)
    assert run.inputs.read_text() == kept
    run.inputs.write_text("{")
    refused("the data or the encoder")
    run.inputs.write_text(json.dumps({"sha256": "0"}))  # as an earlier version wrote it
    refused("the data or the encoder")
    run.inputs.unlink()  # as a run that was killed before it was written
    resume(folder)
    assert run.inputs.read_text() == kept


def test_a_run_that_has_moved_with_its_data_says_so_and_takes_the_new_places(tmp_path, monkeypatch):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    monkeypatch.chdir(before)
    config = dataclasses.replace(
        small_config(),
        data=DataConfig(source="table", path="ratings.csv", cache=str(tmp_path)),
        encoder=EncoderConfig(path="encoder"),
    )
    data = small_experiment(config).data
    write_table(data, before / "ratings.csv")
    save(random_encoder(0), "encoder")
    run, _ = start(config, before / "run")
    assert run.config.data.path == str(before / "ratings.csv")
    assert run.config.encoder.path == str(before / "encoder")
    monkeypatch.chdir("/")
    before.rename(after)
    folder = after / "run"
    with pytest.raises(MetarecError, match=r"data\.path is '.*before/ratings\.csv'.*--data\.path NEW"):
        resume(folder)
    paths = {"data.path": str(after / "ratings.csv")}
    with pytest.raises(MetarecError, match=r"encoder\.path is '.*before/encoder'.*--encoder\.path NEW"):
        resume(folder, paths=paths)
    other = dataclasses.replace(data, rating=data.rating[::-1].copy())
    write_table(other, after / "other.csv")
    paths["encoder.path"] = str(after / "encoder")
    with pytest.raises(MetarecError, match="the ratings: no longer what the run began with"):
        resume(folder, paths=paths | {"data.path": str(after / "other.csv")})
    resume(folder, paths=paths)
    run, _ = resume(folder)  # which kept them
    assert run.config.data.path == str(after / "ratings.csv")


def test_a_start_that_was_killed_before_its_config_was_written_can_be_begun_again(tmp_path):
    """All files of a run but the config are written first, so that the same command finds no run in the way."""
    table, folder = tmp_path / "ratings.csv", tmp_path / "run"
    data = DataConfig(source="table", path=str(table), cache=str(tmp_path))
    config = dataclasses.replace(small_config(), data=data)
    write_table(small_experiment(config).data, table)
    run, _ = start(config, folder)
    files = {path.name for path in folder.iterdir()}
    (folder / "config.json").unlink()
    run.inputs.write_text("{}")
    (folder / ".abc.part").mkdir()
    start(config, folder)
    assert {path.name for path in folder.iterdir()} == files
    resume(folder)
