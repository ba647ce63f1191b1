import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.locks import hold

HOLDER = "import sys; from pathlib import Path; from metarec_jax.core.locks import hold\n"
HOLDER += "with hold(Path(sys.argv[1]), 'x'): print('held', flush=True); sys.stdin.read()"


def start_holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_the_file_says_who_holds_the_lock_and_is_removed_at_the_end(tmp_path):
    path = tmp_path / ".lock"
    with hold(path, "the folder"):
        found = json.loads(path.read_text())
        assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_process_is_refused_by_name_until_the_first_has_died(tmp_path, number):
    path = tmp_path / ".lock"
    process = start_holder(path)
    try:
        says = f"the folder f is in use by process {process.pid} on {socket.gethostname()} (since 2"
        with pytest.raises(MetarecError, match=re.escape(says)), hold(path, "the folder f"):
            pass
        assert json.loads(path.read_text())["pid"] == process.pid, "a refused process leaves the file alone"
    finally:
        process.send_signal(number)
        process.communicate()
    with hold(path, "the folder f"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_one_process_cannot_hold_it_twice(tmp_path):
    with (
        hold(tmp_path / ".lock", "the folder"),
        pytest.raises(MetarecError, match=f"process {os.getpid()}"),
        hold(tmp_path / ".lock", "the folder"),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MetarecError, match="cannot be written"), hold(tmp_path / "file" / ".lock", "the folder"):
        pass
