"""Compiled programs are kept where nobody else can put one, and released where many follow one another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from metarec_jax.core.compile_cache import private_folder, processor, released_programs

KEEPING = """
import sys
from pathlib import Path
from metarec_jax.core.compile_cache import keep_compilations
keep_compilations(Path(sys.argv[1]))
import jax
print(jax.config.values["jax_compilation_cache_dir"])
print(float(jax.jit(lambda x: x + 1)(1.0)))
"""


ANEW = """
import sys
from pathlib import Path
from metarec_jax.core.compile_cache import compiled_anew, keep_compilations
keep_compilations(Path(sys.argv[1]))
import jax

def kept():
    return len(list(Path(sys.argv[1]).rglob("*-cache")))

jax.jit(lambda x: x + 1)(1.0)
before = kept()
with compiled_anew():
    jax.jit(lambda x: x + 2)(1.0)
print(before > 0, kept() == before)
jax.jit(lambda x: x + 3)(1.0)
print(kept() > before)
"""


def test_a_folder_is_made_for_its_owner_alone(tmp_path):
    folder = private_folder(tmp_path / "new" / "xla")
    assert folder == tmp_path / "new" / "xla"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(folder) == folder


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_write_to_is_not_used(tmp_path, mode):
    tmp_path.chmod(mode)
    assert private_folder(tmp_path) is None


def test_a_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    assert private_folder(tmp_path) is None


def test_a_folder_that_cannot_be_made_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert private_folder(tmp_path / "file" / "xla") is None


def test_a_processor_has_one_name():
    assert processor() == processor()
    assert "/" not in processor()


def start(folder, program: str = KEEPING, **variables: str) -> list[str]:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    command = [sys.executable, "-c", program, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


def test_what_is_compiled_is_kept_and_the_users_choice_respected(tmp_path):
    folder = tmp_path / "cache" / "xla" / processor()
    assert start(tmp_path / "cache") == [str(folder), "2.0"]
    assert list(folder.glob("*-cache"))
    chosen = str(tmp_path / "chosen")
    assert start(tmp_path / "other", JAX_COMPILATION_CACHE_DIR=chosen) == [chosen, "2.0"]
    assert not (tmp_path / "other").exists()


def test_what_is_compiled_to_be_timed_is_neither_read_nor_kept(tmp_path):
    """Though JAX looked for the cache before; and it is used again after."""
    assert start(tmp_path / "cache", ANEW) == ["True", "True", "True"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the mappings of a process")
def test_programs_are_released_after_a_block():
    def mappings():
        return len(Path("/proc/self/maps").read_text().splitlines())

    with released_programs():
        for size in range(2, 32):
            jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones(size))
        during = mappings()
    assert mappings() < during - 30
