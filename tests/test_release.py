"""Files of a release: what the wheel holds, the citation, and the workflows of a forge."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
RUNNERS = r"ubuntu-\d\d\.\d\d"
PINNED = r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+"
KEYS = {
    "workflow": {"name", "on", "permissions", "jobs"},
    "job": {"needs", "runs-on", "timeout-minutes", "strategy", "permissions", "steps"},
    "step": {"uses", "with", "run", "env", "name"},
}


def test_the_wheel_has_the_whole_package_and_nothing_else():
    found = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert {path.split("/")[0] for path in found} == {"metarec_jax"}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "metarec_jax").rglob("*.py")}
    page = {str(path.relative_to(ROOT)) for path in (ROOT / "metarec_jax" / "serving" / "page").iterdir()}
    assert "metarec_jax/serving/page/index.html" in page
    assert {"metarec_jax/py.typed", *package, *page} <= found
    assert [path for path in found if "test" in Path(path).parts or "/tests/" in path or path.endswith(".pyc")] == []


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version"} <= set(cited)
    assert (cited["version"], cited["license"], cited["type"]) == (VERSION, "Apache-2.0", "software")
    assert all(author.get("name") or author.get("family-names") for author in cited["authors"])


def test_there_are_workflows_for_docs_tests_and_releases():
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_targets_of_make_with_pinned_actions(path):
    found = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # by which "on" stays a text
    assert set(found) == KEYS["workflow"]
    assert found["name"] == path.stem
    assert set(found["on"]) <= {"push", "pull_request", "schedule", "workflow_dispatch"}
    assert found["permissions"] == {"contents": "read"}
    for job in found["jobs"].values():
        check_job(job, set(found["jobs"]))


def check_job(job: dict[str, Any], names: set[str]) -> None:
    """Check the keys of a job, what it waits for, and its steps."""
    assert set(job) <= KEYS["job"]
    assert re.fullmatch(RUNNERS, job["runs-on"])
    assert int(job["timeout-minutes"]) > 0
    assert {job["needs"]} <= names if "needs" in job else True
    variables = set(re.findall(r"\$\{\{ matrix\.([\w-]+) \}\}", str(job["steps"])))
    assert variables == set(job.get("strategy", {}).get("matrix", {}))
    assert any("run" in step for step in job["steps"])
    for step in job["steps"]:
        assert set(step) <= KEYS["step"]
        assert ("run" in step) != ("uses" in step)
        if "uses" in step:
            assert re.fullmatch(PINNED, step["uses"])
        else:
            (target,) = re.fullmatch(r"make ([\w-]+)", step["run"]).groups()
            assert target in TARGETS


@pytest.mark.parametrize(("tag", "status"), [("", 0), (f"v{VERSION}", 0), ("v9.9.9", 2)])
def test_a_tag_of_another_version_is_refused(tag, status, tmp_path):
    """The other commands of the target are printed, not run."""
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", "dist", f"TAG={tag}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (check,) = re.findall(r"^version=.*?exit 1; }$", recipe, flags=re.MULTILINE | re.DOTALL)
    done = subprocess.run(["sh", "-c", check], cwd=ROOT, env={"TAG": tag}, capture_output=True, text=True)
    assert (done.returncode == 0) == (status == 0)
    assert done.stderr == "" if status == 0 else f"tag v9.9.9: pyproject.toml has version {VERSION}" in done.stderr
