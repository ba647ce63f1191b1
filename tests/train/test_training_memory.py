"""Training from a row store takes memory for its batches, and none for the rows of the store."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, shutil, sys
from pathlib import Path
import numpy as np
from benchmarks.factors import Memory, anonymous
from metarec_jax.config.data import DataConfig, EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.factors import FactorsConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.train import TrainConfig
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Interactions, Items, Users
from metarec_jax.data.store.files import Block, write_description, write_rows
from metarec_jax.train.start import fit, start

USERS, ITEMS, AT_ONCE = 2000, 300, 100
place = Path(sys.argv[1])

def write_store(each):
    shutil.rmtree(place / "store", ignore_errors=True)
    (place / "store").mkdir()
    number = np.tile(np.arange(each), AT_ONCE)

    def rows():
        for first in range(0, USERS, AT_ONCE):
            user = np.repeat(np.arange(first, first + AT_ONCE, dtype=np.int32), each)
            yield Block(user, ((user + 7 * number) % ITEMS).astype(np.int32), (number % 5).astype(np.uint8), number)

    write_rows(place / "store", rows(), users=USERS, coded=True, times=(0, each))
    nothing, names = np.zeros(0, np.int32), tuple(f"item {n}" for n in range(ITEMS))
    about = Interactions(
        nothing, nothing, nothing.astype(np.float32), nothing.astype(np.int64), Users(tuple(map(str, range(USERS)))),
        Items(names, names, names), STARS, "made up",
    )
    write_description(place / "store", about, np.arange(1, 6, dtype=np.float32))
    return sum(file.stat().st_size for file in (place / "store").iterdir())

config = Config(
    data=DataConfig(path=str(place / "store"), cache=str(place / "cache")),
    episodes=EpisodeConfig(min_ratings=8, query=4, max_ratings=0, buckets=(16,), validation=0.2, test=0.2),
    encoder=EncoderConfig(path="random"),
    factors=FactorsConfig(rank=0),
    learner=LearnerConfig(hidden=4, head="rating", user_side="none"),
    updater=UpdaterConfig(steps=1),
    train=TrainConfig(epochs=1, users_per_step=32, devices=1, patience=0),
)
found = []
for each in (40, int(sys.argv[2])):  # the first compiles the programs, which are the same for both
    size, before = write_store(each), anonymous()
    with Memory() as memory:
        run, experiment = start(config, place / f"run-{each}")
        fitted = fit(run, experiment)
    assert fitted.progress.finished and len(experiment.data) == USERS * each
    found.append([size, memory.most - before])
print(json.dumps(found))
"""


@pytest.mark.slow
def test_memory_of_training_does_not_grow_with_the_rows_of_a_store(tmp_path):
    """16 million rows: one number of 8 bytes a row would be 128 MB."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "8000"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=600)
    _, (size, grown) = json.loads(done.stdout.splitlines()[-1])
    assert size > 140e6
    assert grown < 90e6
