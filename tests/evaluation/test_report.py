"""The table: its numbers, its three forms, and what it refuses."""

import io
import json
import os
import re

import numpy as np
import pytest
import rich.console

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Rows
from metarec_jax.evaluation import report as module
from metarec_jax.evaluation.bootstrap import paired_bootstrap
from metarec_jax.evaluation.report import print_table, to_json, to_markdown, write_report
from metarec_jax.evaluation.table import SeedResult, build_table
from metarec_jax.metrics.metrics import UserValues, evaluate_users
from metarec_jax.metrics.predictions import Predictions

ENVIRONMENT = {
    "date": "2030-01-02T03:04:05+00:00",
    "command": "metarec evaluate run",
    "git": None,
    "python": "CPython 3.11",
    "platform": "Linux",
    "cpu": {"model": "a chip", "usable": 2},
    "packages": {"jax": "0.10", "metarec_jax": "0.1"},
    "devices": [{"kind": "cpu", "platform": "cpu", "count": 1}],
    "flags": {},
}
METHODS = {"good | model": 0.3, "plain": 0.9, "flat": None}


def results(seeds=3, users=40, offset=0):
    """Methods with little noise, much noise and constant predictions, on users that some seeds share."""
    found = {name: [] for name in METHODS}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        who = np.sort(rng.permutation(60)[:users]) + offset
        rating = rng.integers(1, 6, (users, 6)).astype(float)
        query = Rows(np.zeros((users, 6), int), rating, np.ones((users, 6)), np.zeros((users, 6, 2)))
        for name, noise in METHODS.items():
            guess = np.full(rating.shape, 3.0) if noise is None else rating + rng.normal(0, noise, rating.shape)
            values = evaluate_users(Predictions(guess, guess, guess), query, metrics=("mae", "rmse", "ndcg@3"))
            found[name].append(SeedResult(seed, who, values, {"auc_global": 0.5 + 0.1 * seed}, {"shrink": 2.0}))
    return found


def table(**more):
    choices = {"title": "A world", "references": ("plain", "flat"), "subject": "good | model", "samples": 200}
    return build_table(results(), protocol="six of six", definitions={"plain": "noise .9"}, **{**choices, **more})


def test_cells_are_means_and_sample_deviations_over_seeds():
    found = table().row("plain").cells["rmse"]
    by_seed = [np.sqrt(np.mean(r.values["rmse"].values)) for r in results()["plain"]]
    assert found.seeds == pytest.approx(by_seed)
    assert found.mean == pytest.approx(np.mean(by_seed))
    assert found.sd == pytest.approx(np.std(by_seed, ddof=1))
    assert table().row("flat").cells["auc_global"].seeds == (0.5, 0.6, 0.7)


def test_users_are_drawn_once_for_all_metrics_and_methods(monkeypatch):
    compared = results()
    drawn = []

    class Watched(np.random.Generator):
        def integers(self, high, size):
            drawn.append(size)
            return super().integers(high, size=size)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Watched(np.random.PCG64(seed)))
    build_table(compared, title="t", protocol="p", references=("plain", "flat"), samples=123)
    assert drawn == [(123, len(np.unique([r.users for r in compared["plain"]])))]


def test_differences_are_those_of_the_means_that_the_table_shows_and_know_the_users():
    found = table()
    good, plain = found.row("good | model"), found.row("plain")
    for name in ("mae", "rmse", "ndcg@3"):
        interval = good.differences["plain"][name]
        assert interval.difference == pytest.approx(good.cells[name].mean - plain.cells[name].mean, abs=1e-12)
        assert interval.low < interval.difference < interval.high
    distinct = len(np.unique(np.concatenate([r.users for r in results()["plain"]])))
    assert distinct < 3 * 40
    assert good.differences["plain"]["mae"].users == distinct
    assert "auc_global" not in good.differences["plain"]
    assert set(plain.differences) == {"flat"}

    a, b = results()["good | model"], results()["plain"]
    expected = paired_bootstrap(
        np.concatenate([r.values["mae"].values for r in a]),
        np.concatenate([r.values["mae"].values for r in b]),
        np.ones(120),
        groups=np.concatenate([r.users for r in a]),
        strata=np.repeat([0, 1, 2], 40),
        samples=200,
    )
    assert good.differences["plain"]["mae"] == expected


def test_json_holds_everything_and_is_strict():
    one_seed = build_table(results(seeds=1), title="t", protocol="p", references=("plain",), samples=50)
    tree = json.loads(to_json(one_seed, ENVIRONMENT), parse_constant=lambda text: pytest.fail(f"not JSON: {text}"))
    assert tree["environment"] == ENVIRONMENT
    good = tree["methods"][0]
    assert good["name"] == "good | model"
    assert good["metrics"]["mae"]["sd"] is None  # one seed has no spread
    assert good["metrics"]["mae"]["mean"] == one_seed.rows[0].cells["mae"].mean
    assert good["differences"]["plain"]["mae"]["excludes_zero"] is True
    assert good["settings"] == [{"shrink": 2.0}]
    assert [m["name"] for m in tree["metrics"]] == ["mae", "rmse", "ndcg@3", "auc_global"]


def test_markdown_states_the_policies_marks_the_best_and_escapes():
    text = to_markdown(table(), ENVIRONMENT)
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("| good"))
    assert row.startswith(r"| good \| model | **.2")
    assert row.count("**") == 6  # best in MAE, RMSE and nDCG; the global AUC is the same for all
    assert r"\*** |" not in row.replace(r"\***", "", 3)  # each star is escaped inside its bold cell
    assert "| metric | itself | plain | flat |" in lines
    assert "- six of six" in lines
    assert any("3 seeds (± is the s.d. over them), 40 test users in each" in line for line in lines)
    assert "exact expectations over the random order of equal scores" in text
    assert "- plain: noise .9" in lines
    assert "- MAE (lower is better): " in text
    assert "Made by `metarec evaluate run`; jax 0.10 on 1 x cpu (2 CPU threads, a chip)" in text
    cells = [line.replace(r"\|", "").count("|") for line in lines if line.startswith("|")]
    assert cells[:5] == [6] * 5


def printed(width, terminal):
    file = io.StringIO()
    print_table(table(), rich.console.Console(file=file, width=width, force_terminal=terminal, no_color=True))
    return file.getvalue()


def test_a_terminal_gets_parts_that_fit_and_a_file_gets_whole_lines():
    narrow, whole = printed(60, True), printed(60, False)
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in narrow.splitlines()) <= 60
    assert narrow.count("A world") > 1
    assert whole.count("A world") == 1
    for text in (narrow, whole):
        assert "…" not in text
        for cell in (c for row in module.main_cells(table())[1] for c in row):
            assert cell in text


def test_a_star_means_that_the_interval_excludes_zero():
    header, body = module.main_cells(table())
    assert header[1] == "MAE ↓"
    by_method = {row[0]: row for row in body}
    assert by_method["good | model"][1].endswith("*")
    assert not by_method["plain"][1].endswith("*")
    same = results()
    same["twin"] = same["plain"]
    twin = build_table(same, title="t", protocol="p", references=("plain",), samples=100)
    assert not any(cell.endswith("*") for cell in module.main_cells(twin)[1][-1])


def test_an_undefined_metric_is_a_dash_and_null():
    nobody = {"mae": UserValues(np.zeros(4), np.zeros(4))}
    empty = {name: [SeedResult(0, np.arange(4), nobody)] for name in ("a", "b")}
    found = build_table(empty, title="t", protocol="p", references=("a",), subject="b", samples=10)
    assert module.main_cells(found)[1] == [["a", "–"], ["b", "–"]]
    assert module.difference_cells(found)[1] == [["MAE ↓", "–", "–"]]
    assert json.loads(to_json(found, ENVIRONMENT))["methods"][0]["metrics"]["mae"]["mean"] is None


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    paths = write_report(table(), tmp_path / "run", ENVIRONMENT)
    assert [p.name for p in paths] == ["evaluation.json", "evaluation.md"]
    before = paths[0].read_text(encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MetarecError, match="cannot be written: No space left on device"):
        write_report(table(title="B world"), tmp_path / "run", ENVIRONMENT)
    assert paths[0].read_text(encoding="utf-8") == before
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["evaluation.json", "evaluation.md"]
    (tmp_path / "file").write_text("")
    with pytest.raises(MetarecError, match="file: cannot be written"):
        write_report(table(), tmp_path / "file", ENVIRONMENT)


def test_methods_that_were_not_judged_alike_are_refused():
    mixed = results()
    mixed["plain"] = results(offset=1)["plain"]
    with pytest.raises(ValueError, match=r"'plain' was not evaluated on the same seeds and users as 'good \| model'"):
        build_table(mixed, title="t", protocol="p")
    with pytest.raises(ValueError, match="'item mean' is none of the methods"):
        table(references=("item mean",))
    other = results()
    values = dict(other["plain"][0].values)
    values["mae"] = values["mae"]._replace(weights=np.zeros(40))
    other["plain"][0] = SeedResult(0, other["plain"][0].users, values)
    with pytest.raises(ValueError, match="mae has other weights"):
        build_table(other, title="t", protocol="p", metrics=("mae",), references=("plain",), samples=10)
