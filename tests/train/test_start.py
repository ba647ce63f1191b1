"""A run is started on data and an encoder, and resumed on the same ones alone."""

import dataclasses
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

    def refused():
        with pytest.raises(
            MetarecError, match=r"inputs\.json: the data or the encoder are no longer .*bring them back"
        ):
            resume(folder)

    rating = data.rating.copy()
    rating[0] = 6 - rating[0] if rating[0] != 3 else 4
    write_table(dataclasses.replace(data, rating=rating), table)
    refused()
    write_table(data, table)
    shutil.rmtree(encoder)
    save(random_encoder(1), encoder)
    refused()
    shutil.rmtree(encoder)
    save(random_encoder(0), encoder)
    run, _ = resume(folder)
    assert run.inputs.read_text() == kept
    run.inputs.write_text("{")
    refused()
    run.inputs.unlink()  # as a run that was killed before it was written
    resume(folder)
    assert run.inputs.read_text() == kept
