"""What the README says is what the project does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from quick import quick_flags

from benchmarks import report

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_is_the_committed_one():
    ((path, shown),) = re.findall(r"<!-- results: (\S+) -->\n(.*?)<!-- end of results -->", README, flags=re.DOTALL)
    assert shown.strip() == (ROOT / path).read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_benchmarks_are_the_committed_ones(page):
    """Every table and profile of a page is what the report prints of the results it names."""
    text = page.read_text(encoding="utf-8")
    blocks = report.BLOCK.findall(text)
    assert len(blocks) == len(re.findall("<!-- (?:benchmark|profile|differences|costs|roofline):", text))
    for kind, path, cases, shown in blocks:
        assert shown == report.block(kind, path, cases)


def test_the_python_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    command, environment = [sys.executable, "-c", example], os.environ | {"XLA_FLAGS": quick_flags()}
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
