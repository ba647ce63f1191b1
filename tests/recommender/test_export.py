"""The folder for a user's own device: it says what the recommender says, and the example needs nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_close
from test_recommender import untrained
from trained import trained_run

from metarec_jax.cli.main import main
from metarec_jax.core.errors import MetarecError
from metarec_jax.recommender.export import export_folder

EXAMPLE = Path(__file__).parents[2] / "examples" / "on_device.py"
HISTORY = {7: 5, 8: 1, 40: 4}

WATCHED = """
import json, runpy, sys

seen = {"opened": [], "written": [], "asked": []}

def hear(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        writes = isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        seen["written" if writes else "opened"].append(arguments[0])
    elif event.startswith("socket.") or event in ("subprocess.Popen", "os.system"):
        seen["asked"].append(event)

import jax, jax.export, numpy
jax.devices()
sys.addaudithook(hear)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
modules = sorted(m for m in sys.modules if m.split(".")[0] in ("metarec_jax", "safetensors"))
print(json.dumps(seen | {"modules": modules}))
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A recommender that reads no text of users, and the folder made of it."""
    recommender = untrained(side="none", head="ordinal")
    return recommender, export_folder(recommender, tmp_path_factory.mktemp("plain") / "device")


def test_a_device_gives_the_recommender_s_list_and_reads_only_the_folder(plain):
    recommender, folder = plain
    rates = [f"--rate=id:{item}={rating}" for item, rating in HISTORY.items()]
    command = [sys.executable, "-c", WATCHED, str(EXAMPLE), str(folder), *rates, "-k", "117", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, env={"JAX_PLATFORMS": "cpu"})
    assert ran.returncode == 0, ran.stderr
    answer, seen = map(json.loads, ran.stdout.splitlines())
    want = recommender.recommend(recommender.adapt(HISTORY), k=117)
    assert [item["id"] for item in answer] == [item.id for item in want]
    assert_close(np.float32([i["score"] for i in answer]), np.float32([i.score for i in want]))
    assert seen["modules"] == seen["asked"] == seen["written"] == []
    own = {str(path) for path in folder.iterdir()}
    library = (str(Path(np.__file__).parents[1]), sys.base_prefix, sys.prefix, "/proc/", "/sys/")
    assert {path for path in seen["opened"] if not path.startswith(library)} <= own | {str(EXAMPLE)}
    assert str(folder / "scores-16.jax") in seen["opened"]


def test_the_manifest_lists_the_folder(plain):
    recommender, folder = plain
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["support_lengths"] == list(recommender.config.episodes.buckets)
    assert set(manifest["sha256"]) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert manifest["arguments"][-3:] == ["item", "rating", "mask"]
    assert json.loads((folder / "items.json").read_text())["ids"] == list(recommender.catalogue.items.ids)


def test_a_folder_that_is_not_empty_is_refused(plain):
    recommender, folder = plain
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(MetarecError, match="holds something already"):
        export_folder(recommender, folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_that_reads_descriptions_cannot_be_exported(tmp_path, capsys):
    assert main(["export", str(trained_run()), "--out", str(tmp_path / "device")]) == 2
    assert "user_side" in capsys.readouterr().err
    assert not (tmp_path / "device").exists()
