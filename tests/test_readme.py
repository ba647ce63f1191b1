"""The README, and the printed tables of README and docs: each is what the commands print, and commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from quick import library_environment

from benchmarks import report

ROOT = report.ROOT
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_quality_is_the_committed_one():
    """All of it, apart from line breaks in its prose."""
    page = (ROOT / "docs/results/quality.md").read_text(encoding="utf-8")
    ((path, shown),) = re.findall(r"<!-- results: (\S+) -->\n(.*?)<!-- end of results -->", page, flags=re.DOTALL)
    assert shown.split() == (ROOT / path).read_text(encoding="utf-8").split()


def test_the_short_tables_are_excerpts_of_at_most_7_rows_and_6_columns():
    shown = {kind: block.splitlines() for kind, _, _, block in report.BLOCK.findall(README)}
    assert set(shown) == {"headline", "speed"}
    for lines in shown.values():
        header, _, *rows = [line for line in lines if line.startswith("|")]
        assert header.count("|") - 1 <= 6
        assert 2 <= len(rows) <= 7


@pytest.mark.parametrize("page", report.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_benchmarks_are_the_committed_ones(page):
    """Every table and profile of a page is what the report prints of the results it names."""
    text = page.read_text(encoding="utf-8")
    blocks = report.BLOCK.findall(text)
    assert len(blocks) == len(re.findall(f"<!-- (?:{'|'.join(report.KINDS)}):", text))
    for kind, path, cases, shown in blocks:
        assert shown == report.block(kind, path, cases)


def test_the_python_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert example.count("epochs=3") == 1
    example = example.replace("epochs=3", "epochs=1")
    command, environment = [sys.executable, "-c", example], os.environ | library_environment()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("validation loss 0.")
    assert len(lines) == 8
    assert lines[-1] == "1000"


def test_every_command_and_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    from metarec_jax.cli.main import COMMANDS

    assert set(re.findall(r"^metarec (\w+)", README, flags=re.MULTILINE)) <= set(COMMANDS)
