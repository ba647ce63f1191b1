"""What docs/accelerators.md shows is what the committed results say, and results are of cases that there are."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from benchmarks import aot

ROOT = Path(__file__).parents[3]
ROWS = json.loads((ROOT / "benchmarks/results/aot.json").read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("group", aot.CASES)
def test_tables_are_those_of_the_results(group):
    text = (ROOT / "docs/accelerators.md").read_text(encoding="utf-8")
    assert re.findall(rf"<!-- aot: {group} -->\n(.*?)\n<!-- end -->", text, re.DOTALL) == [aot.table(ROWS, group)]


def test_results_are_of_cases_that_there_are():
    cases = {case.name: case for group in aot.CASES.values() for case in group}
    assert len(cases) == len({case for group in aot.CASES.values() for case in group}), "names are different"
    for row in ROWS:
        assert aot.Case(**row["case"]) == cases[row["case"]["name"]]


def test_gram_space_needs_an_eighth_of_the_cycles():
    cycles = {row["case"]["name"]: row["cycles"] for row in ROWS}
    name = "inner loop, {}, bfloat16, v5e:1x1"
    assert cycles[name.format("dense")] / cycles[name.format("factored")] >= 8


def test_what_chips_send_does_not_grow_and_is_little():
    """Of the joint step with BERT-base, against the estimate of one chip."""
    rows = {row["case"]["name"]: row for row in ROWS}
    alone = rows["bert-base all, v5e:1x1, users 64, remat False, level "]
    assert alone["collectives"] == {}
    pods = [row for row in ROWS if row["case"]["encoder"] == "bert-base" and row["chips"] > 1]
    sent = {sum(part["bytes"] for part in row["collectives"].values()) for row in pods}
    assert len(sent) == 1
    assert 256 in {row["chips"] for row in pods}
    assert all(row["link_seconds"] < 0.1 * alone["seconds"] for row in pods)


def test_matrix_units_are_busy_in_the_joint_step_that_is_advised():
    """Of BERT-base in bfloat16 on a v5e: its choices are the best of those that were compiled."""
    joint = [row for row in ROWS if aot.Case(**row["case"]) in aot.BOUGHT]
    best = min(joint, key=lambda row: row["seconds"])
    assert best["utilisation"] >= 0.4
    advised = {"compute": "bfloat16", "attention": "tiled", "remat": True, "scan": False, "tokens_per_call": 2048}
    assert advised.items() <= best["case"].items()


def test_a_case_is_compiled_once_and_written_at_once(tmp_path):
    names, written = [], []
    out = tmp_path / "results" / "aot.json"

    def compiled(case):
        written.append(len(json.loads(out.read_text())["rows"]) if out.exists() else 0)
        names.append(case.name)
        return {"case": dataclasses.asdict(case)}

    for _ in range(2):
        rows = aot.run(aot.LAYER, out, compiled=compiled)
    assert names == [case.name for case in aot.LAYER]
    assert written == list(range(len(aot.LAYER)))
    assert json.loads(out.read_text())["rows"] == rows
