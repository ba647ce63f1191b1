"""What is said of a fit before it begins and while it goes on."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_says, interactions

from metarec_jax.core.device_memory import machine_memory
from metarec_jax.core.errors import MetarecError
from metarec_jax.factors.cross_fitting import believe_all
from metarec_jax.factors.fit_memory import Sizes, announce, need
from metarec_jax.factors.row_products import one_device
from metarec_jax.factors.sorted_rows import IN_FILES

SMALL = Sizes(rows=10_000, users=500, items=300, features=40, columns=32, folds=5)
LARGE = Sizes(rows=25_000_000, users=162_000, items=59_000, features=45, columns=32, folds=2)


class Told:
    """Keeps what is reported; a second bar while one is shown is an error, as it is on a terminal."""

    def __init__(self):
        self.notes, self.bars, self.open = [], [], False

    def note(self, text):
        self.notes.append(text)

    @contextlib.contextmanager
    def bar(self, label, total):
        assert not self.open
        self.open, steps = True, []
        self.bars.append((label, total, steps))
        yield lambda done, text="": steps.append((done, text))
        self.open = False


def test_memory_is_said_before_and_every_long_part_shows_progress():
    rng, told = np.random.default_rng(0), Told()
    user, item = np.nonzero(rng.random((60, 20)) < 0.5)
    data = interactions(user, item, rng.integers(1, 6, len(user)), users=60, items=20)
    texts, profiles = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(60, 3)).astype(np.float32)
    believe_all(4, data, texts, np.arange(len(data)), profiles, 0, told, folds=2)
    assert_says(told.notes[0], f"{len(data)} ratings, 60 users and 20 items", "one cpu device", "GB of memory")
    labels = [label for label, _, _ in told.bars]
    rows = f"grouping {len(data)} rows"
    parts = ["item factors", "item factors without fold 1 of 2", "item factors without fold 2 of 2"]
    assert labels[:2] == [f"{parts[0]}: {rows}", parts[0]]
    assert [label for label in labels if "grouping" not in label] == [*parts, "expected tastes of users"]
    for label, total, steps in told.bars:
        assert steps
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1][0] <= total
        assert ("rmse" in steps[-1][1]) == (label in parts)


def test_more_of_anything_needs_more_and_more_devices_need_less_each():
    least = need(SMALL, 1, on_host=False)
    for name in Sizes._fields:
        more = need(SMALL._replace(**{name: 100 * getattr(SMALL, name)}), 1, on_host=False)
        assert more.host > least.host or name == "users"
        assert more.device >= least.device
    assert need(LARGE, 8, on_host=False).device < need(LARGE, 1, on_host=False).device / 2
    assert need(LARGE, 1, on_host=True).host > need(LARGE, 1, on_host=False).host


def test_the_estimate_of_25_million_ratings_is_what_was_measured():
    """32 million of a store took 1.07 GB, 0.2 GB of which were there before (python -m benchmarks.row_store)."""
    large = need(LARGE, 1, on_host=True)
    assert 0.7e9 < large.host < 1.2e9
    assert large.disk == 25_000_000 * 32


def test_rows_in_memory_need_more_memory_than_rows_in_files():
    """12 bytes while they are grouped, and 8 in each of two groupings, padding apart."""
    most = LARGE._replace(rows=IN_FILES - 1)
    memory, files = need(most, 1, on_host=True), need(most._replace(rows=IN_FILES), 1, on_host=True)
    assert memory.host - files.host > 28 * IN_FILES
    assert (memory.disk, files.disk) == (0, 32 * IN_FILES)
    told = Told()
    announce(most._replace(rows=IN_FILES), one_device(), told)
    assert_says(told.notes[0], "0.3 GB of temporary files")


def test_what_no_machine_can_hold_is_refused_before_it_begins():
    rows = 10 * machine_memory()
    with pytest.raises(MetarecError) as error:
        announce(SMALL._replace(rows=rows), one_device(), Told())
    assert_says(str(error.value), f"{rows:,} ratings", "this machine has", "--factors.rank", "--episodes.max-ratings")


def test_a_limit_of_the_process_counts():
    """A limit that is set for real, in a process of its own."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30)); "
        "from metarec_jax.core.device_memory import machine_memory; print(machine_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(done.stdout) == 3 << 30
