"""A disk that fills up at any write: one message, status 2, nothing that waits, and nothing half-written that stays.

The faults are real: small file systems in memory, and a C library whose n-th write or fsync fails.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cases.metarec_process import SMALL, metarec, write_data

SAYS = "No space left on device: free some space, then run the same command again"
SAVE = """
import dataclasses, sys
from pathlib import Path
import jax
from metarec_jax.core.errors import MetarecError
from metarec_jax.train.checkpoints import Checkpoints, Progress
try:
    with Checkpoints(Path(sys.argv[1])) as checkpoints:
        for step in range(1, 5):
            state = {"kernel": jax.random.normal(jax.random.key(step), (150, 150))}
            checkpoints.save(state, dataclasses.replace(Progress.at_start(), step=step))
except MetarecError as error:
    print(error)
"""
FAILING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int count;
static int fails(int file) {
  char name[64], path[4096];
  strcpy(name, "/proc/self/fd/");
  char *end = name + strlen(name); int n = file, digits = 0; char reversed[16];
  do reversed[digits++] = '0' + n % 10; while (n /= 10);
  while (digits) *end++ = reversed[--digits];
  *end = 0;
  ssize_t length = readlink(name, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strstr(path, getenv("FAIL_BELOW")) && ++count >= atoi(getenv("FAIL_FROM"));
}
ssize_t write(int file, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  if (fails(file)) { errno = ENOSPC; return -1; }
  return real(file, data, size);
}
int fsync(int file) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fsync");
  if (fails(file)) { errno = ENOSPC; return -1; }
  return real(file);
}
"""


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system in memory with these options at a folder."""
    mounted = []

    def mount(options):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("there is no command mount")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("options", "kept"), [("size=4m,nr_inodes=4", []), ("size=4m,nr_inodes=20", ["1"]), ("size=200k", ["1"])]
)
def test_a_checkpoint_that_finds_no_space_ends_at_once_and_leaves_whole_ones(small_disk, options, kept):
    """Where no folder could be made, orbax's threads once waited 300 seconds."""
    folder, started = small_disk(options) / "checkpoints", time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert SAYS in done.stdout, done.stderr
    assert time.monotonic() - started < 60
    assert sorted(path.name for path in folder.iterdir()) == kept


@pytest.fixture(scope="module")
def failing_library(tmp_path_factory):
    """A library for LD_PRELOAD."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler, or no LD_PRELOAD")
    folder = tmp_path_factory.mktemp("library")
    (folder / "failing.c").write_text(FAILING)
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", folder / "failing.so", folder / "failing.c", "-ldl"]
    subprocess.run(command, check=True)
    return folder / "failing.so"


WRITE = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from metarec_jax import encoder
from metarec_jax.core import atomic_files, checked_files, locks
from metarec_jax.core.errors import MetarecError
folder = Path(sys.argv[1])
def lock(path):
    with locks.hold(path, "it"):
        pass
for write in (
    lambda: atomic_files.write_text(folder / "text", "new"),
    lambda: atomic_files.write_text(folder / "secret", "new", private=True),
    lambda: checked_files.write_arrays(folder / "arrays", {"a": np.zeros(3)}),
    lambda: checked_files.write_table(folder / "table", pa.table({"a": [1]}), {}),
    lambda: encoder.save(encoder.load("random"), folder / "encoder"),
    lambda: lock(folder / "lock"),
):
    try:
        write()
    except MetarecError as error:
        print(error)
"""


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whatever_is_written_is_whole_or_not_there_when_the_first_or_second_write_fails(
    tmp_path, failing_library, number
):
    folder = tmp_path / "below-this"
    folder.mkdir()
    (folder / "text").write_text("old")
    settings = {"LD_PRELOAD": str(failing_library), "FAIL_BELOW": "below-this", "FAIL_FROM": str(number)}
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(folder)],
        env={**os.environ, **settings, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout.splitlines()
    assert len(said) >= 5, done.stderr
    assert all(SAYS in line for line in said)
    assert {path.name for path in folder.iterdir()} <= {"text", "lock"}
    assert (folder / "text").read_text() == "old"


@pytest.mark.slow
def test_a_training_on_a_full_disk_is_one_message_and_goes_on_when_there_is_space(small_disk, tmp_path):
    data, disk = write_data(tmp_path), small_disk("size=150k")
    status, _, err = metarec("train", *data, *SMALL, "--train.epochs", "4", "--out", disk / "run", cwd=tmp_path)
    assert (status, SAYS in err) == (2, True), err
    assert not list(disk.rglob("*.part"))
    assert not list(disk.rglob("*tmp*"))
    subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
    again = (
        ("--resume", disk / "run")
        if (disk / "run" / "config.json").exists()
        else (*data, *SMALL, "--out", disk / "run")
    )
    status, out, err = metarec("train", *again, cwd=tmp_path)
    assert (status, "trained" in out) == (0, True), err
