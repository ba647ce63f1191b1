"""Files of a run, an export and an encoder have the modes that the umask gives, so that another account reads them."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from trained import trained_run

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.export import export_folder
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.train import run_folder


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_modes_are_those_of_the_umask(tmp_path, umask, file_mode, folder_mode):
    before = os.umask(umask)
    try:
        encoder.save(encoder.random_encoder(), tmp_path / "encoder")
        export = export_folder_of(tmp_path / "run", tmp_path / "export")
    finally:
        os.umask(before)
    for folder in (tmp_path / "encoder", export, tmp_path / "run"):
        for path in (folder, *folder.rglob("*")):
            wanted = folder_mode if path.is_dir() else file_mode
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def export_folder_of(run: Path, target: Path) -> Path:
    """Train a run of one epoch, and export it."""
    from training import small_config, small_experiment

    from metarec_jax.train import catalogue
    from metarec_jax.train.start import fit

    config = small_config(epochs=1)
    experiment = small_experiment(config)
    made = run_folder.create(run, config, fill=lambda r: catalogue.save(experiment.catalogue, r))
    fit(made, experiment)
    return export_folder(Recommender.load(run), target)


READ = """
import os, sys
from pathlib import Path
from metarec_jax.train import run_folder, catalogue, parameters
from metarec_jax.core.errors import MetarecError
import pyarrow.parquet, safetensors.numpy
os.setresuid(12345, 12345, 12345)
try:
    run = run_folder.open_run(Path(sys.argv[1]))
    catalogue.load(run)
except MetarecError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
@pytest.mark.parametrize("name", ["config.json", "catalogue.parquet", "tables.safetensors"])
def test_what_another_account_may_not_read_is_not_called_missing_or_damaged(tmp_path, name):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.stat().st_mode & 0o777 == 0o700:  # temporary folders of pytest
            os.chmod(folder, 0o755)
    folder = Path(shutil.copytree(trained_run(), tmp_path / "run"))
    (folder / name).chmod(0o600)
    found = subprocess.run([sys.executable, "-c", READ, str(folder)], capture_output=True, text=True, check=False)
    if "Permission denied" in found.stderr or "Error" in found.stderr:
        pytest.skip(f"another account cannot run this Python: {found.stderr[-200:]}")
    assert f"{name} cannot be read: this account has no permission" in found.stdout
    assert "does not exist" not in found.stdout
    (folder / "config.json").unlink()
    with pytest.raises(MetarecError, match=r"config\.json does not exist"):
        run_folder.open_run(folder)
