"""What the environment says of other processes, and what is agreed on where there are none."""

import pytest
from helpers import assert_says

from metarec_jax.core import peers, processes
from metarec_jax.core.errors import MetarecError

TOLD = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "here"}, ["JAX_COORDINATOR_ADDRESS", "'here'", "HOST:PORT"]),
        ({"JAX_NUM_PROCESSES": "two"}, ["JAX_NUM_PROCESSES", "'two'", "number"]),
        ({"JAX_PROCESS_ID": "-1"}, ["JAX_PROCESS_ID", "'-1'", "number"]),
        ({"JAX_NUM_PROCESSES": "0", "JAX_PROCESS_ID": "0"}, ["JAX_NUM_PROCESSES", "0", "at least 1"]),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, ["JAX_PROCESS_ID", "2", "from 0 to 1"]),
    ],
)
def test_a_mistake_in_the_environment_is_named(environment, parts, monkeypatch):
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MetarecError) as found, peers.joined():
        pass
    assert_says(str(found.value), *parts)
    assert processes.group is None


def test_alone_there_is_nobody_to_agree_with():
    assert (processes.index(), processes.count(), processes.is_first()) == (0, 1, True)
    processes.barrier("nothing")
    assert processes.everyone("texts", "mine") == ["mine"]
    assert processes.from_first("text", lambda: "made here") == "made here"
    assert processes.arrays_from_first("arrays", lambda: None) is None
