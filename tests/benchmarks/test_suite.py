"""The suite runs by name, keeps what was measured, and is told as one page with plots."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from benchmarks import harness, outer_step, profiles, ranking, report, roofline, scaling, suite
from benchmarks.figures import _points, draw, figures, file_of
from metarec_jax.core.progress import QUIET

SIZE = suite.Size(2, True, QUIET)


@pytest.mark.parametrize(
    "name",
    [
        "outer-step-frozen",
        "rank",
        pytest.param("pipeline", marks=pytest.mark.slow),
        "evaluation",
        "encoder",
        pytest.param("catalogue", marks=pytest.mark.slow),
        pytest.param("updaters", marks=pytest.mark.slow),
        pytest.param("start-up", marks=pytest.mark.slow),
        pytest.param("tracing", marks=pytest.mark.slow),
        pytest.param("scaling", marks=pytest.mark.slow),
    ],
)
def test_a_case_runs_small(name):
    rows, about = suite.measure(suite.CASES[name], SIZE)
    assert {"seconds", "rounds", "date", "command", "git", "flags", "packages", "largest_rss_mb"} <= set(about)
    assert rows
    for row in rows:
        assert min(row.ours, row.theirs, *row.ratio.values()) > 0
        json.dumps(row.to_json())


def test_what_was_measured_is_kept_and_gone_on_from(tmp_path, capsys):
    calls = []

    def case(name):
        def rows(size):
            calls.append(name)
            yield [harness.Row(name, "other", "users/s", 2.0, 1.0, harness.flat(2.0), bar=1.5)]

        return rows

    known = {"one": case("one"), "two": case("two")}
    out = tmp_path / "out.json"
    suite.main(["one", "--json", str(out)], known)
    suite.main(["--json", str(out)], known)
    assert calls == ["one", "two"]
    suite.main(["one", "--again", "--json", str(out)], known)
    assert calls == ["one", "two", "one"]
    document = json.loads(out.read_text())
    assert sorted(row["suite"] for row in document["rows"]) == ["one", "two"]
    assert {"environment", "rows", "cases"} == set(document)
    with pytest.raises(SystemExit):
        suite.main(["three"], known)
    assert "there is no case 'three'; there are one, two" in capsys.readouterr().err
    assert calls == ["one", "two", "one"]


def test_results_of_another_layout_are_not_overwritten(tmp_path):
    (tmp_path / "old.json").write_text('{"environment": {}, "rows": []}')
    with pytest.raises(SystemExit, match="is not a results file of the whole suite"):
        harness.read(tmp_path / "old.json")


def test_a_page_has_every_row_and_plots_of_what_there_is(tmp_path):
    faster = harness.Row("case", "other", "users/s", 2.0, 1.0, {"low": 1.5, "median": 2.0, "high": 3.0}, 4.0)
    seconds = {1: np.array([1.0, 1.1]), 2: np.array([1.5, 1.6])}
    curve = scaling.curve("users", "users", {1: 1.0, 2: 2.0}, seconds)
    assert curve.ratio["median"] == pytest.approx((2 / 1.5 + 2 * 1.1 / 1.6) / 2)
    rows = [faster.to_json() | {"suite": "rank"}, curve.to_json() | {"suite": "scaling"}]
    about = {"seconds": 1.0, "rounds": 2, **harness.made()}
    path = tmp_path / "out.json"
    harness.write_document({"rows": rows, "cases": {"rank": about, "scaling": about}}, path)
    document = json.loads(path.read_text())
    plots = draw(document, tmp_path / "out")
    assert [title for title, _ in plots] == ["times faster, rank", "scaling"]
    assert all(file.stat().st_size > 1000 for _, file in plots)
    page = report.page(document, [(title, file.name) for title, file in plots])
    assert "| case | other | users/s | 2 | 1 | 2 (1.5 to 3) | 4 **missed** |" in page
    assert "![scaling](scaling.png)" in page


def test_the_committed_page_is_that_of_the_committed_results():
    results = report.ROOT / "benchmarks/results"
    document = json.loads((results / "suite.json").read_text(encoding="utf-8"))
    plots = [(title, f"suite/{file_of(title)}") for title in figures(document)]
    assert (results / "suite.md").read_text(encoding="utf-8") == report.page(document, plots)
    assert all((results / file).exists() for _, file in plots)


def test_everything_that_has_results_is_printed(capsys, tmp_path):
    report.main([])
    said = capsys.readouterr().out
    assert {"# aot", "# suite", "# joint-memory"} <= set(said.splitlines())
    assert "| forward, MiniLM | transformers | texts/s |" in said
    with pytest.raises(SystemExit, match=r"holds no results yet: python -m benchmarks --json"):
        report.everything(tmp_path)


def test_a_table_is_footed_with_what_its_own_cases_say():
    """Each by its command, commit and rounds; cases that were made alike stand together."""
    about = harness.made() | {"rounds": 7, "git": {"commit": "a" * 40, "changed": False}}
    cases = {
        "one": about | {"command": "python -m benchmarks one two", "date": "2026-01-02T00:00:00"},
        "two": about | {"command": "python -m benchmarks one two", "date": "2026-01-02T00:00:00"},
        "old": {key: about[key] for key in ("rounds", "git")} | {"date": "2025-01-02T00:00:00"},
    }
    seconds = {"ours": np.ones(3), "theirs": np.ones(3)}
    rows = []
    for name in cases:
        (row,) = harness.compare(name, seconds, ours="ours", work=1.0, metric="users/s")
        rows.append(json.loads(json.dumps(row.to_json() | {"suite": name})))
    del rows[-1]["facts"]["rounds"]
    document = {"environment": harness.environment(), "rows": rows, "cases": cases}
    made = report.table(document).splitlines()[-1]
    alike = f"one, two: `python -m benchmarks one two`, 3 rounds, commit {'a' * 10}, 2026-01-02"
    assert made.endswith(f": {alike}; old: up to 7 rounds, commit {'a' * 10}, 2025-01-02.")
    assert report.table(document, ["two"]).splitlines()[-1].endswith(alike.removeprefix("one, two:") + ".")


def test_shares_of_the_machines_limits_are_told_of_every_program():
    machine = roofline.Machine(small=True)
    seconds = {limit.name: np.array([2.0, 1.0, 4.0]) for limit in machine.contenders()}
    work = {name: limit.work for name, limit in machine._limits.items()}
    seconds["ours"] = np.array([4.0, 2.0, 8.0])
    best = machine.best(seconds)
    assert set(seconds) == {"ours"}, "the limits are no contenders"
    gigabytes = max(amount for name, amount in work.items() if name != "limit, product")
    assert best.bandwidth == pytest.approx(gigabytes / np.array([2.0, 1.0, 4.0]))
    facts = {"gflop_of_products": work["limit, product"], "gbytes_moved": gigabytes / 2, "peak_mb": 1.0}
    facts |= dict.fromkeys(("trace_s", "lower_s", "compile_s", "first_s"), 1.0)
    reached = roofline.reached(best, {"ours": facts, "untimed": facts}, seconds)
    assert set(reached) == {"ours"}
    assert (reached["ours"]["of_gemm_peak"], reached["ours"]["of_bandwidth"]) == pytest.approx((0.5, 0.25))
    row = harness.Row("case", "other", "users/s", 2.0, 1.0, harness.flat(2.0))
    row = dataclasses.replace(row, facts={"phases": {"ours": facts}, "roofline": reached})
    rows = [row.to_json() | {"suite": "case"}] * 2
    document = {"environment": harness.environment(), "rows": rows, "cases": {"case": {**harness.made(), "rounds": 3}}}
    told = report.roofline(json.loads(json.dumps(document)))
    assert told.count("| case | ours | 1.00 | 1.00 | 1.00 | 1.00 |") == 1
    assert "(50 %)" in told
    assert "(25 %)" in told
    assert [point.name for point in _points(rows)] == ["case"]


def test_phases_are_medians_after_a_warm_up():
    """And totals in which loops count once are not compared."""
    made = []

    def facts(form):
        made.append(form)
        turn = len(made) if form == "factored" else 10 * len(made)
        return {"trace_s": float(turn), "gflop": 1.0, "gbytes_accessed": 1.0, "gbytes_moved": 2.0, "first_s": 1.0}

    rows = {row.metric: row for row in outer_step.phases_in_turns(facts, 3)}
    assert made == ["factored", "dense"] * 4
    assert set(rows) == {"trace_s", "gbytes_moved", "first_s"}
    assert (rows["trace_s"].ours, rows["trace_s"].theirs) == (5.0, 60.0)


def test_marked_blocks_are_printed_anew(tmp_path):
    row = harness.Row("case", "other", "users/s", 2.0, 1.0, harness.flat(2.0))
    harness.write([row], tmp_path / "r.json")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmark: r.json case -->\nold\n<!-- end of benchmark -->\nafter\n")
    assert report.update(page, tmp_path)
    assert "| case | other | users/s | 2 | 1 | 2 |" in page.read_text()
    assert not report.update(page, tmp_path)
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("-->\nafter\n")


def test_a_block_that_is_still_empty_does_not_swallow_what_follows(tmp_path):
    harness.write([harness.Row("case", "other", "users/s", 2.0, 1.0, harness.flat(2.0))], tmp_path / "r.json")
    page, empty = tmp_path / "page.md", "<!-- benchmark: r.json case -->\n<!-- end of benchmark -->\n"
    page.write_text(f"{empty}between\n{empty}after\n")
    assert report.update(page, tmp_path)
    found = page.read_text()
    assert found.count("| case | other | users/s | 2 | 1 | 2 |") == 2
    assert found.index("| case |") < found.index("between") < found.rindex("| case |") < found.index("after")
    assert not report.update(page, tmp_path)


def test_lists_that_differ_are_not_timed():
    class Item:
        score = 4.0

    with pytest.raises(SystemExit, match="who: the lists disagree: scores are off by 1"):
        ranking._agree("who", [[Item()]], np.array([[3.0]]), np.array([[0]]))


@pytest.mark.slow
def test_profiles_say_where_the_time_goes():
    """Of what runs, and of a start from end to end."""
    start, *programs = profiles.rows(smoke=True)
    steps = [step["operation"] for step in start.facts["profile"]]
    assert steps[0] == "Python itself"
    assert steps[-2:] == ["score all items and pick", "print"]
    # Each step is rounded to a microsecond, the whole is not.
    assert start.ours == pytest.approx(start.theirs, abs=0.5e-3 * len(steps))
    assert [row.case for row in programs] == [
        "outer step, frozen, smoke",
        "adapt and rank, smoke",
        "forward, 8 to 256 tokens",
        "forward + backward, 8 to 256 tokens",
    ]
    for row in programs:
        operations = row.facts["profile"]
        assert operations, row.case
        # Each of a shape, the costliest first.
        assert all(operation["operation"].startswith(("f32[", "s32[", "pred[", "(")) for operation in operations)
        assert [o["ms"] for o in operations] == sorted((o["ms"] for o in operations), reverse=True)
        assert row.ours > 0
