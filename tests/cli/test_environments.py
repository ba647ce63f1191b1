"""Commands in unusual environments: each is a process of its own, which answers or ends with one message."""

import json
import os
import subprocess
import sys

import pytest
from helpers import assert_says
from trained import trained_run

ANSWER = ["recommend", "RUN", "--rate", "id:1=5", "-k", "2", "--json"]


def run(
    arguments: list[str], changes: dict[str, str | None], cache: str, wrapper: str = ""
) -> subprocess.CompletedProcess:
    """Run a command with some variables set, or removed where None; `wrapper` is a shell line around "$@"."""
    environment = {**os.environ, "METAREC_CACHE": cache, "JAX_PLATFORMS": "cpu"}
    environment = {name: value for name, value in {**environment, **changes}.items() if value is not None}
    command = [sys.executable, "-m", "metarec_jax", *(str(trained_run()) if a == "RUN" else a for a in arguments)]
    if wrapper:
        command = ["bash", "-c", wrapper, "bash", *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=600)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all processes, so that programs are compiled once."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    ("changes", "wrapper"),
    [
        pytest.param({"HOME": None}, "", marks=pytest.mark.slow),
        ({"HOME": "/proc/nothing", "METAREC_CACHE": "/proc/nothing"}, ""),
        ({"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, ""),
        pytest.param({"TERM": "dumb", "COLUMNS": "20"}, "", marks=pytest.mark.slow),
        pytest.param({"JAX_DISABLE_JIT": "1"}, "", marks=pytest.mark.slow),
        pytest.param({"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, "", marks=pytest.mark.slow),
        ({}, '"$@" 2>&-'),
    ],
    ids=["no home", "no cache", "ASCII", "dumb terminal", "no jit", "a flag of XLA", "closed stderr"],
)
def test_the_answer_is_the_same(changes, wrapper, cache):
    done = run(ANSWER, changes, cache, wrapper)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["recommended"]) == 2


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"JAX_PLATFORMS": "nope"}, ["JAX_PLATFORMS='nope'", "cpu", "metarec_jax[cuda]"]),
        ({"JAX_PLATFORMS": "cuda"}, ["JAX_PLATFORMS='cuda'", "metarec_jax[cuda]"]),
        ({"JAX_ENABLE_X64": "1"}, ["JAX_ENABLE_X64", "float32"]),
        ({"XLA_FLAGS": "--xla_no_such_flag=1"}, ["XLA_FLAGS", "--xla_no_such_flag", "remove"]),
        ({"JAX_DISABLE_JIT": "perhaps"}, ["'perhaps'", "JAX_DISABLE_JIT", "unset"]),
        ({"JAX_DEFAULT_MATMUL_PRECISION": "most"}, ["most", "jax_default_matmul_precision", "unset"]),
        ({"XLA_FLAGS": "xla_dump_to=here"}, ["XLA_FLAGS", "xla_dump_to=here", "--"]),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_one_message(changes, names, cache):
    done = run(ANSWER, changes, cache)
    assert (done.returncode, done.stdout) == (2, "")
    assert_says(done.stderr, *names)
    assert len(done.stderr.splitlines()) == 1


def test_a_title_that_the_output_cannot_show_is_escaped(cache):
    done = run(["recommend", "RUN", "--rate", "Amélie=5"], {"PYTHONIOENCODING": "ascii"}, cache)
    assert done.returncode == 2
    assert_says(done.stderr, r"Am\xe9lie")


@pytest.mark.parametrize("wrapper", ['"$@" | head -c 1 >&-; exit ${PIPESTATUS[0]}', '"$@" >&-'])
def test_output_that_nobody_reads_is_no_failure(wrapper, cache):
    done = run(ANSWER, {}, cache, wrapper)
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr


UNKNOWN = """
import os
from metarec_jax.data.sources.find import cache_folder
os.setuid(54321)
print(cache_folder())
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root becomes another user")
def test_a_user_that_the_system_does_not_know_has_a_cache():
    environment = {name: v for name, v in os.environ.items() if name not in ("HOME", "METAREC_CACHE", "XDG_CACHE_HOME")}
    done = subprocess.run([sys.executable, "-c", UNKNOWN], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "metarec_jax-54321" in done.stdout


def test_a_message_that_cannot_be_written_leaves_the_status(cache):
    done = run(["recommend", "nowhere", "--rate", "id:1=5"], {}, cache, '"$@" 2>/dev/full')
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        (["doctor"], "JAX_DISABLE_JIT", "perhaps"),
        (["compare", "a", "b"], "JAX_PLATFORMS", "nope"),
        (["bench"], "JAX_DISABLE_JIT", "perhaps"),
        pytest.param(["doctor"], "JAX_PLATFORMS", "nope", marks=pytest.mark.slow),
        pytest.param(["compare", "a", "b"], "JAX_DISABLE_JIT", "perhaps", marks=pytest.mark.slow),
        pytest.param(["bench"], "JAX_PLATFORMS", "nope", marks=pytest.mark.slow),
    ],
)
def test_a_value_that_jax_refuses_is_one_message_of_every_command(command, name, value, cache):
    done = run(command, {name: value}, cache)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    if command != ["compare", "a", "b"] or name == "JAX_DISABLE_JIT":  # comparing starts no device
        assert_says(done.stderr, name)
