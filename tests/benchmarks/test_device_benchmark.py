"""`benchmarks.device` runs on a CPU in its smallest size, with nothing but the packages that it names, and writes what
it has whatever happens to a part."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import assert_says
from quick import quick_flags

from benchmarks import report
from benchmarks.device import measure, page, parts, supervise

ROOT = Path(__file__).parents[2]
NAMED = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy", "torch")
"""Distributions that the benchmark may use, with all that they need."""
SMALL_PARTS = ("limits", "inner loop", "encoder, 32 tokens", "outer step", "joint step, 32 tokens")
SMALL_PARTS += ("top-k, 1 million items",)


def needed(names: tuple[str, ...]) -> set[str]:
    """Distributions with what they need, without extras."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        left += [re.match(r"[\w.-]+", line)[0] for line in wanted if "extra ==" not in line]
    return found


BLOCKER = """
import sys

class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            return None
        return self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> dict[str, str]:
    """The environment of a process in which only the named packages, and what they need, can be imported."""
    folder = tmp_path_factory.mktemp("bare")
    allowed = needed(NAMED) | {"metarec-jax"}
    owners = importlib.metadata.packages_distributions()
    absent = {
        module
        for module, names in owners.items()
        if not any(re.sub(r"[-_.]+", "-", name).lower() in allowed for name in names)
    }
    assert {"grain", "tyro", "pyarrow", "jaxtyping", "lazy_loader"} <= absent
    (folder / "sitecustomize.py").write_text(BLOCKER.format(names=absent))
    path = f"{folder}{os.pathsep}{ROOT}"
    return {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick_flags()}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.device", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def smoke(bare, tmp_path_factory) -> dict:
    """The results of the smallest size."""
    out = tmp_path_factory.mktemp("device") / "new" / "out.json"
    done = run(bare, *SMALL_PARTS, "--smoke", "--minutes", "9", "--json", str(out))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.slow
def test_every_part_is_measured_without_other_packages(smoke):
    assert list(smoke["parts"]) == list(SMALL_PARTS)
    assert {name: part["error"] for name, part in smoke["parts"].items() if part["error"]} == {}
    assert [(row["case"], row["program"], row["error"]) for row in smoke["rows"] if row["error"]] == []
    for row in smoke["rows"]:
        assert 0 < row["seconds"]["low"] <= row["seconds"]["median"] <= row["seconds"]["high"]
        assert row["amount"] > 0
    assert smoke["environment"]["devices"][0]["platform"] == "cpu"


@pytest.mark.slow
def test_all_ways_to_compute_a_case_are_there(smoke):
    programs: dict[str, list[str]] = {}
    for row in smoke["rows"]:
        programs.setdefault(row["part"], []).append(row["program"])
    assert {"bfloat16", "float32", "float32, highest precision", "copy", "read"} <= set(programs["limits"])
    for name in (
        "Gram, float32",
        "Gram, bfloat16",
        "kernel, bfloat16",
        "dense, float32",
        "PyTorch, torch.func, float32",
    ):
        assert name in programs["inner loop"]
    assert programs["encoder, 32 tokens"] == ["ours", "PyTorch, sdpa"] * 2
    assert "PyTorch, torch.func, float32" in programs["outer step"]
    assert programs["joint step, 32 tokens"] == ["Gram, float32"]
    assert "int8 bounds" in programs["top-k, 1 million items"]


@pytest.mark.slow
def test_programs_of_the_inner_loop_agree(smoke):
    """In float32 to rounding; bfloat16 has 8 bits."""
    errors = {
        row["program"]: row["facts"]["relative_error"]
        for row in smoke["rows"]
        if row["part"] == "inner loop" and "relative_error" in row["facts"]
    }
    assert len(errors) == 7
    assert {name: error for name, error in errors.items() if not error < (0.1 if "bfloat16" in name else 1e-4)} == {}


@pytest.mark.slow
def test_compile_times_and_peak_memory_are_written(smoke):
    for row in smoke["rows"]:
        if row["part"] in ("inner loop", "outer step", "joint step, 32 tokens") and "PyTorch" not in row["program"]:
            assert {"trace_s", "lower_s", "compile_s", "peak_mb", "gflop", "gbytes"} <= set(row["facts"])


@pytest.mark.slow
def test_a_page_is_printed_from_the_results(smoke, tmp_path, capsys):
    out = tmp_path / "device.json"
    out.write_text(json.dumps(smoke))
    report.main([str(out), "--page"])
    text = out.with_suffix(".md").read_text()
    assert_says(text, "### Memory", "### Meta-gradient, 4 users", "| Gram, bfloat16 |", "x PyTorch", "| joint step, 32")
    assert all(len(line) <= report.WIDTH for line in text.splitlines() if not line.startswith("|"))
    capsys.readouterr()
    report.main([str(out), "outer step", "--as", "device"])
    assert "### Outer step, encoder frozen" in (told := capsys.readouterr().out)
    assert "### Memory" not in told


@pytest.mark.slow
def test_what_was_not_measured_is_on_the_page(smoke):
    rows = [{**smoke["rows"][0], "seconds": None, "error": "MemoryError: it did not fit"}]
    failed = {"limits": {"seconds": None, "error": "stopped: it took longer than its time"}}
    text = page.page({"environment": {}, "rows": rows, "parts": failed})
    assert_says(text, "memory, copy: MemoryError: it did not fit", "limits: stopped: it took longer", "| limits | |")


def measured_by(source: str, names: list[str], tmp_path, monkeypatch, *, seconds: float = 60.0) -> dict:
    """What is written of parts that a module with this source measures."""
    (tmp_path / "sitecustomize.py").write_text(
        "from benchmarks.device import parts\n"
        f"parts.PARTS = {{name: parts.Part(4, name, 'measure') for name in {names!r}}}\n"
        "import sys, types\n"
        f"for name in {names!r}:\n"
        "    module = sys.modules['benchmarks.device.' + name] = types.ModuleType(name)\n"
        f"    exec({source!r}, module.__dict__)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    written = []
    document = supervise.Document(names, lambda found: written.append(json.dumps(found)))
    supervise.measure(names, seconds, document, smoke=False)
    return json.loads(written[-1])


FAULTS = """
import os, time

def measure(asked):
    from benchmarks.device.measure import Row
    yield Row("case", __name__, {"median": 1.0, "low": 1.0, "high": 1.0})
    if __name__ == "raises":
        raise ValueError("of this part")
    if __name__ == "dies":
        os._exit(7)
    if __name__ == "hangs":
        time.sleep(1000)
"""


def test_a_part_that_fails_dies_or_hangs_does_not_take_the_others_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "GRACE_S", 0.0)
    names = ["raises", "dies", "hangs", "last"]
    found = measured_by(FAULTS, names, tmp_path, monkeypatch)
    assert [row["program"] for row in found["rows"]] == names, "what came before a fault is kept"
    errors = [found["parts"][name]["error"] for name in names]
    assert_says(errors[0], "ValueError: of this part")
    assert_says(errors[1], "ended with 7 in this part")
    assert_says(errors[2], "took longer than its time")
    assert errors[3] == ""


def test_parts_without_time_are_named(tmp_path, monkeypatch):
    found = measured_by(FAULTS, ["first"], tmp_path, monkeypatch, seconds=1.0)
    assert found["rows"] == []
    assert found["parts"]["first"]["error"] == supervise.LEFT_OUT


def test_results_are_kept_when_the_benchmark_is_stopped(bare, tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.device", "limits", "inner loop", "--smoke", "--json", str(out)]
    process = subprocess.Popen(command, env=bare, cwd=ROOT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 600
    while time.monotonic() < until and not (out.exists() and json.loads(out.read_text())["rows"]):
        time.sleep(0.05)
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert json.loads(out.read_text())["rows"]


def test_a_program_that_fails_has_a_row_with_the_error():
    def fails() -> measure.Work:
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nwith a long table")

    works = {"fails": fails, "works": lambda: measure.Work(lambda: 1, 2, "users", {"gflop": float("nan")})}
    asked = measure.Asked(smoke=True, until=time.monotonic() + 60)
    first, second = measure.measured("case", works, asked, most=0.01)
    assert (first.seconds, first.error) == (None, "RuntimeError: RESOURCE_EXHAUSTED: out of memory")
    assert second.error == ""
    assert "gflop" not in second.to_json()["facts"], "JSON has no NaN"
    (late,) = measure.measured("case", {"late": fails}, measure.Asked(smoke=True, until=0.0), most=0.01)
    assert_says(late.error, "no time was left")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--json", "x.json", "nothing"], ["there is no part 'nothing'", "limits; inner loop"]),
        (["--json", "x.json", "--minutes", "0"], ["--minutes 0", "above 0"]),
        ([], ["--json"]),
    ],
)
def test_mistakes_are_named(arguments, named, capsys):
    from benchmarks.device.__main__ import main

    with pytest.raises(SystemExit):
        main(arguments)
    assert_says(capsys.readouterr().err, *named)


def test_the_parts_are_those_of_the_issue():
    """In order of their value."""
    names = list(parts.PARTS)
    assert names[:2] == ["limits", "inner loop"]
    for length in (16, 32, 64):
        assert f"encoder, {length} tokens" in names
        assert f"joint step, {length} tokens" in names
