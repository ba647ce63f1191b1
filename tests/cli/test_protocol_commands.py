"""A protocol of the field from files on disk to tables, through the command."""

import json

import layouts
import numpy as np

from metarec_jax.cli import main


def test_melus_protocol_runs_from_a_folder_in_the_layout_of_movielens_1m(tmp_path, capsys, evaluated):
    """From ratings.dat, movies.dat and users.dat to tables, through the command; then compared with itself."""
    data, out = layouts.movielens_1m_of(tmp_path / "ml-1m"), tmp_path / "out"
    arguments = ["--protocol", "melu", "--preset", "movielens-1m", "--data.path", str(data), "--seeds", "1"]
    small = ["--encoder.path", "random", "--learner.hidden", "4", "--updater.steps", "1", "--train.epochs", "1"]
    places = ["--data.cache", str(tmp_path / "cache"), "--out", str(out), "--metrics", "melu"]
    tree = json.loads(evaluated(*arguments, *small, "--train.devices", "1", *places, "--json"))
    assert list(tree["scenarios"]) == ["warm (training users)", "new users", "new items", "new users and items"]
    assert "items after 1997 are new" in tree["protocol"]
    for table in tree["scenarios"].values():
        assert [m["name"] for m in table["metrics"]] == ["mae", "ndcg_linear@1", "ndcg_linear@3"]
        assert all(np.isfinite(m["metrics"]["mae"]["mean"]) for m in table["methods"])
    assert json.loads((out / "tables" / "evaluation.json").read_text())["scenarios"] == tree["scenarios"]

    assert main.main(["compare", str(out), str(out), "--against", "item mean"]) == 0
    text = capsys.readouterr().out
    assert "new users and items, by cohort" in text
    assert "B is 'item mean' of" in text
    assert main.main(["compare", str(out), str(out), "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["lines"]
    assert {line["difference"]["difference"] for line in lines} == {0.0}
    assert main.main(["compare", str(out), str(tmp_path)]) == 2
    assert "holds no evaluation" in capsys.readouterr().err
