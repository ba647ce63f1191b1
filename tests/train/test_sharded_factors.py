"""Training on several devices fits item factors on all of them, with the same result as on one."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest
from cases.metarec_process import SMALL, metarec, write_data
from helpers import assert_close
from trained import believing_config, small_data

from metarec_jax.core.checked_files import read_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.data.protocols import divide
from metarec_jax.data.splits import row_statistics
from metarec_jax.factors.row_products import AXIS
from metarec_jax.train.build import learn_factors
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.sharding import factor_mesh


class Devices:
    """Keeps how many devices hold a part of a table after each sweep, and all notes."""

    def __init__(self):
        self.notes, self.most = [], 0

    def note(self, text):
        self.notes.append(text)

    @contextlib.contextmanager
    def bar(self, label, total):
        def look(done, text=""):
            split = (a.sharding for a in jax.live_arrays() if not a.sharding.is_fully_replicated)
            self.most = max([self.most, *(len(s.device_set) for s in split if AXIS in getattr(s, "spec", ()))])

        yield look


def learned(devices, cache):
    """Beliefs and tables of the folds, on so many devices."""
    config, data, told = believing_config(), small_data(), Devices()
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, devices=devices),
        data=dataclasses.replace(config.data, cache=str(cache)),
    )
    division = divide(data, config, config.seed)
    texts = np.random.default_rng(0).normal(size=(len(data.items), 6)).astype(np.float32)
    catalogue = Catalogue(data.items, row_statistics(data, division.train), texts, data.scale)
    found, folded = learn_factors(config, data, division, catalogue, reporter=told)
    return found.beliefs, folded, told


@pytest.mark.slow
def test_a_run_fits_factors_on_all_its_devices_with_the_result_of_one(tmp_path):
    with jax.enable_x64(True):  # so that only the saved float32 rounds
        (one, folds, _), (all_of_them, all_folds, told) = learned(1, tmp_path), learned(0, tmp_path)
    assert told.most == len(jax.devices()) == 8
    assert "on 8 cpu devices" in told.notes[0]
    for name in ("table", "of_new"):
        assert_close(getattr(all_of_them, name), getattr(one, name))
    assert_close(all_folds.tables, folds.tables)
    assert_close(all_of_them.tastes["choice"]["kernel"], one.tastes["choice"]["kernel"])


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(MetarecError, match=r"train\.devices is 9, but only 8"):
        factor_mesh(9)


@pytest.mark.slow
def test_the_command_uses_all_devices(tmp_path, monkeypatch):
    """Two devices that XLA makes of the CPU: the same factors as with one, within rounding."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    data, found = write_data(tmp_path / "data"), {}
    for devices in ("1", "0"):
        out = tmp_path / f"run{devices}"
        status, _, err = metarec("train", *data, *SMALL, "--train.devices", devices, "--out", out, cwd=tmp_path)
        assert status == 0, err
        found[devices] = read_arrays(out / "beliefs.safetensors")[0]["table"]
        assert ("on 2 cpu devices" if devices == "0" else "on one cpu device") in err
    assert_close(found["0"], found["1"], tolerance=1e-4, because="float32 sums in another order, over all sweeps")
