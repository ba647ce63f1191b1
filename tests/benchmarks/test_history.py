"""Results of releases are gathered with their day and commit, and the table shows how ratios moved."""

import json

import pytest

from benchmarks import history, report
from metarec_jax.core.errors import MetarecError


def made(day: str, commit: str) -> dict:
    return {"date": f"{day}T00:00:00+00:00", "git": {"commit": commit, "changed": False}}


def row(case: str, median: float, **more: object) -> dict:
    ratio = {"median": median, "low": median - 1, "high": median + 1}
    figures = {"metric": "users/s", "ours": 10 * median, "theirs": 10.0, "ratio": ratio, "bar": None}
    return {"case": case, "contender": "rival", **figures, "facts": {"phases": {}}, **more}


@pytest.fixture
def results(tmp_path):
    """A suite with two cases of different days, another benchmark, an evaluation, and files that are no results."""
    cell = {"mean": 0.7, "sd": None, "seeds": [0.7], "interval": None}
    method = {"name": "model", "metrics": {"mae": cell}}
    table = {"subject": "model", "methods": [{"name": "mean", "metrics": {}}, method]}
    documents = {
        "suite.json": {
            "environment": made("2026-01-09", "z"),
            "cases": {"rank": made("2026-01-01", "a"), "encoder": made("2026-01-02", "b")},
            "rows": [row("one", 2.0, suite="rank"), row("two", 3.0, suite="encoder")],
        },
        "older.json": {"environment": made("2025-12-01", "c"), "rows": [row("one", 9.0)]},
        "aot.json": {"environment": made("2026-01-03", "d"), "rows": [{"case": "x", "chips": 1}]},
        "local.json": {"environment": made("2026-01-04", "e"), "rows": [row("one", 99.0)]},
        "ml/evaluation.json": {**table, "environment": {"date": "2026-01-05", "git": None}},
        "several/evaluation.json": {"scenarios": {"new": table}, "environment": made("2026-01-06", "f")},
    }
    for name, document in documents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(document))
    return tmp_path


def test_each_row_keeps_the_day_and_the_commit_of_its_measurement(results):
    history.main(["0.2.0"], results)
    history.main(["0.10.0"], results)  # the file of an earlier release is no result
    found = history.releases(results / "history")
    assert list(found) == ["0.2.0", "0.10.0"]
    first = found["0.2.0"]
    assert first["benchmarks"] == found["0.10.0"]["benchmarks"]
    assert set(first["benchmarks"]) == {"suite.json", "older.json"}
    measured = [
        (r["suite"], r["date"][:10], r["commit"], r["rows"][0]["ours"]) for r in first["benchmarks"]["suite.json"]
    ]
    assert measured == [("rank", "2026-01-01", "a", 20.0), ("encoder", "2026-01-02", "b", 30.0)]
    assert first["evaluations"] == {
        "ml/evaluation.json": {"date": "2026-01-05", "commit": None, "metrics": {"": {"mae": 0.7}}},
        "several/evaluation.json": {
            "date": "2026-01-06T00:00:00+00:00",
            "commit": "f",
            "metrics": {"new": {"mae": 0.7}},
        },
    }


def test_the_table_shows_each_release(results):
    history.main(["0.2.0"], results)
    text = report.block("history", "history", "one: rival", results)
    assert "| one: rival | 2 (2026-01-01) |" in text  # not the older measurement of the same pair
    assert "One release so far" in text
    document = json.loads((results / "suite.json").read_text())
    document["rows"][0]["ratio"]["median"] = 2.5
    (results / "suite.json").write_text(json.dumps(document))
    history.main(["0.10.0"], results)
    text = report.block("history", "history", "", results)
    assert "| case: rival | 0.2.0 | 0.10.0 |" in text
    assert "| one: rival | 2 (2026-01-01) | 2.5 (2026-01-01) |" in text
    assert "2 releases" in text


def test_a_version_of_another_form_is_refused(results):
    with pytest.raises(MetarecError, match=r"the version is '\.\./x': give that of pyproject\.toml"):
        history.main(["../x"], results)
    assert not (results / "history").exists()
