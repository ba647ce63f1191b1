"""Embeddings that are too large for a device: each batch brings its own rows, and nothing else changes."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_close
from training import small_config, small_experiment

from metarec_jax.core.file_rows import FileRows
from metarec_jax.train import catalogue, frozen_program, loop, run_folder


def trained(folder, experiment, *, by_batch):
    """Parameters, and the losses of each epoch."""

    def fill(run):
        catalogue.save(experiment.catalogue, run)

    run = run_folder.create(folder, experiment.config, fill=fill)
    fitted = loop.train(run, frozen_program.build(run, experiment, by_batch=by_batch))
    losses = [(line["train_loss"], line["validation_loss"]) for line in run.read_metrics()]
    return jax.device_get(fitted.trainable), np.array(losses)


@pytest.mark.parametrize(("devices", "factors"), [(1, False), pytest.param(4, True, marks=pytest.mark.slow)])
def test_a_training_is_that_with_tables(tmp_path, devices, factors):
    config = small_config()
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, devices=devices, epochs=2),
        factors=dataclasses.replace(config.factors, train=factors),
    )
    experiment = small_experiment(config)
    (tmp_path / "rows").write_bytes(np.asarray(experiment.train.tables.items, np.float32).tobytes())
    embeddings = FileRows(tmp_path / "rows", 0, experiment.train.tables.items.shape, np.dtype(np.float32))

    def in_file(part):
        return dataclasses.replace(part, tables=part.tables._replace(items=embeddings))

    of_file = dataclasses.replace(
        experiment, train=in_file(experiment.train), validation=in_file(experiment.validation)
    )
    theirs, losses = trained(tmp_path / "tables", experiment, by_batch=False)
    ours, found = trained(tmp_path / "by-batch", of_file, by_batch=True)
    assert_close(found, losses)
    assert_close(ours, theirs)
