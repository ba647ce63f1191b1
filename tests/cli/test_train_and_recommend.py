"""`metarec train` and `metarec recommend`: what they print and write."""

import json
from pathlib import Path

import pytest
from trained import small_data, trained_run

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_recommend_prints_json(printed_json, contents):
    before = contents(trained_run())
    ratings = ["--rate", "id:3=5", "--rate", "id:4=1.5"]
    tree = printed_json("recommend", trained_run(), *ratings, "-k", 4, "--item-text", "bagabe", "--why")
    assert [(r["id"], r["rating"]) for r in tree["rated"]] == [("3", 5.0), ("4", 1.5)]
    assert len(tree["recommended"]) == 4
    assert {r["id"] for r in tree["recommended"]}.isdisjoint({"3", "4"})
    assert [r["score"] for r in tree["recommended"]] == sorted((r["score"] for r in tree["recommended"]), reverse=True)
    assert all({"why", "because"} <= set(r) for r in tree["recommended"])
    assert tree["item_texts"][0]["text"] == "bagabe"
    assert 1 <= tree["item_texts"][0]["score"] <= 5
    assert contents(trained_run()) == before


def test_recommend_prints_tables(metarec):
    title = small_data().items.titles[6]
    status, out, _ = metarec("recommend", trained_run(), "--rate", f"{title.upper()}=5", "-k", 120, "--include-seen")
    assert status == 0
    rated, recommended = out.split("Recommended")
    assert title in rated
    assert all(title in recommended for title in small_data().items.titles)
    assert "…" not in out


def test_train_then_resume(metarec):
    config = trained_run() / "config.json"
    status, out, err = metarec("train", "--config", config, "--train.epochs", 1, "--out", "a/run", "--json")
    assert status == 0
    assert "epoch 1: training loss" in err
    tree = json.loads(out)
    assert tree["run"] == "a/run"
    assert (tree["epoch"], tree["finished"]) == (1, True)
    assert tree["goodput"]["seconds"]["start_up"] > 0
    assert "goodput" in err.splitlines()[-1]
    assert {p.name for p in Path("a/run").iterdir()} == {
        "config.json", "catalogue.parquet", "tables.safetensors", "metrics.jsonl", "checkpoints", "plots",
        "parameters.safetensors", "inputs.json", "goodput.json", "about.json", "card.md",
    }  # fmt: skip
    assert Path(tree["plot"]).stat().st_size > 1000
    # A run that was killed before its items were written is made whole again.
    Path("a/run/catalogue.parquet").unlink()
    status, out, _ = metarec("train", "--resume", "a/run", "--trace", 1, "--tracker", "tensorboard")
    assert status == 0
    assert "trained 1 epochs" in out
    assert Path("a/run/catalogue.parquet").exists()
