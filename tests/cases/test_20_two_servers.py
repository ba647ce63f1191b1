"""One store belongs to one service: the second one is told who has it, and a kill sets it free."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from helpers import assert_says
from trained import trained_run

from metarec_jax.cli import main
from metarec_jax.core.errors import MetarecError
from metarec_jax.serving.rows import NewItem
from metarec_jax.serving.store import Store

HOLD = """
import sys, pathlib
from metarec_jax.serving.store import Store
from metarec_jax.serving.rows import NewItem
store = Store(pathlib.Path(sys.argv[1]))
store.add_item(NewItem("new-lamp", "A lamp", "A bright lamp", {}))
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.wait(60)
    process.stdin.close()
    process.stdout.close()


def test_a_second_service_is_told_who_has_the_store(holder, tmp_path, capsys):
    with pytest.raises(MetarecError) as refused:
        Store(tmp_path)
    assert_says(str(refused.value), str(tmp_path), "in use", str(holder.pid), socket.gethostname())
    assert main.main(["serve", str(trained_run()), "--port", "0", "--store", str(tmp_path)]) == 2
    assert_says(capsys.readouterr().err, str(tmp_path), "in use", str(holder.pid))


def test_a_killed_service_leaves_the_store_to_the_next(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait(60)
    store = Store(tmp_path)
    assert [item.id for _, item in store.items()] == ["new-lamp"]
    store.close()
    Store(tmp_path).close()


def test_one_id_is_one_item(tmp_path):
    store = Store(tmp_path)
    store.add_item(NewItem("a", "", "One", {}))
    with pytest.raises(MetarecError, match="there is an item with the id 'a' already"):
        store.add_item(NewItem("a", "", "Two", {}))
    assert store.add_item(NewItem("", "", "Three", {}), names=iter(["a", "b"])) == "b"
    assert [item.text for _, item in store.items()] == ["One", "Three"]
    store.close()
