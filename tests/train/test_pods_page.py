"""The scripts of docs/pods.md run in their form for CPUs: two processes, small data, a stand-in for Slurm's srun."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from quick import quick_flags
from several import FROZEN, LIMIT, free_port, metrics, write_data

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")
SRUN = """
while [[ $1 == --* ]]; do shift; done
for i in 0 1; do
  SLURM_JOB_ID=4711 SLURM_STEP_NODELIST=localhost SLURM_NTASKS=2 SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
done
wait -n; first=$?; wait -n; second=$?
exit $((first > second ? first : second))
"""
"""Starts two processes with the variables that Slurm gives them."""


def block(beginning: str) -> str:
    """The block of the page with this text."""
    (found,) = [text for text in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) if beginning in text]
    return found


def write_script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def shared(tmp_path):
    """The shared folder with the data and train.sh, and the environment of scripts."""
    *_, option, encoder = write_data(tmp_path)
    options = " ".join((option, encoder, *FROZEN, "--train.epochs", "2"))
    script = block("exec metarec train").replace("--train.users-per-step 4096", options)
    write_script(tmp_path / "train.sh", script.replace("/shared", str(tmp_path)))
    commands = tmp_path / "bin"
    commands.mkdir()
    write_script(commands / "metarec", f'exec {sys.executable} -m metarec_jax "$@"')
    write_script(commands / "srun", SRUN)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{quick_flags()} --xla_force_host_platform_device_count=1",
        "JAX_COORDINATOR_PORT": str(free_port()),
    }
    return tmp_path, environment


def run(script: str, environment: dict[str, str], folder: Path) -> str:
    """Run a script, and return what it said."""
    command = ["timeout", "--signal", "KILL", str(LIMIT), "bash", "-c", script]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_script_trains_under_slurm_and_goes_on_on_one_machine(shared):
    folder, environment = shared
    said = run(block("#SBATCH").replace("/shared", str(folder)), environment, folder)
    assert "trained 2 epochs" in said
    assert [line["epoch"] for line in metrics(folder / "run")] == [1, 2]

    there = block("export JAX_COORDINATOR_ADDRESS").replace("/shared", str(folder))
    there = there.replace("12345", str(free_port())).replace("JAX_NUM_PROCESSES=8", "JAX_NUM_PROCESSES=2")
    there = there.replace("0 1 2 3 4 5 6 7", "0 1").replace(" JAX_LOCAL_DEVICE_IDS=$i", "")
    assert "trained 2 epochs" in run(there, environment, folder)


def test_the_job_set_runs_the_script_on_every_host_of_the_slice():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["bash", "/shared/train.sh"]
    assert job["parallelism"] == job["completions"]
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    assert job["completions"] * container["resources"]["limits"]["google.com/tpu"] == rows * columns
