"""Compilation targets: a name, and the devices that XLA compiles for, which need not be present.

libtpu describes TPUs, and JAX's CUDA plugin GPUs; both compile without a device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from metarec_jax.core.errors import MetarecError
from metarec_jax.train.aot.chips import CHIPS, Chip
from metarec_jax.train.aot.h100 import H100

PLANE = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBE = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
TOPOLOGIES: Mapping[str, Sequence[str]] = {"v5e": PLANE, "v5p": CUBE, "v6e": PLANE}
"""Topologies of cloud TPU slices, from 1 chip to 256."""
GPUS = 8
"""Greatest number of GPUs in one machine."""
NAMES = "v5e:2x2 (v5e, v5p or v6e, and a topology), cuda:h100, cuda:h100:8, or here"

_LIBTPU = {
    # This process runs nothing on a TPU, so it needs no metadata server and no lock.
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # Without these, libtpu reports that it cannot determine its environment.
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
}
_CUDA_FLAGS = (
    "--xla_gpu_enable_triton_gemm=false",  # it would need to run kernels for autotuning
    "--xla_gpu_collect_cost_model_stats=true",
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A compilation target.

    Attributes:
        name: name given by the user.
        family: "tpu", "cuda", or "here" for the devices of this process.
        topology: topology of a TPU slice, "2x2".
        chips: number of devices.
        chip: published figures; None where they are not known.
    """

    name: str
    family: str
    topology: str
    chips: int
    chip: Chip | None


def parse(name: str) -> Target:
    """Parse the name of a target.

    Raises:
        MetarecError: there is no such chip or topology; the message lists the existing ones.

    >>> parse("v5e:4x4").chips
    16
    """
    kind, _, rest = name.partition(":")
    if kind == "here":
        if rest:
            raise MetarecError(f"--target {name}: all devices of this machine are used: write 'here'")
        return Target(name, "here", "", 0, None)
    if kind in TOPOLOGIES:
        topology = rest or TOPOLOGIES[kind][0]
        if topology not in TOPOLOGIES[kind]:
            raise MetarecError(
                f"--target {name}: {kind} has no topology {topology!r}; there are {', '.join(TOPOLOGIES[kind])}"
            )
        return Target(name, "tpu", topology, math.prod(map(int, topology.split("x"))), CHIPS[kind])
    found = re.fullmatch(r"cuda:h100(?::(\d+))?", name)
    if found:
        chips = int(found[1] or 1)
        if not 1 <= chips <= GPUS:
            raise MetarecError(f"--target {name}: {chips} GPUs; a machine holds 1 to {GPUS}")
        return Target(name, "cuda", "", chips, CHIPS["h100"])
    raise MetarecError(f"--target {name}: no such target; write {NAMES}")


def prepare_process(targets: Sequence[Target]) -> None:
    """Set the environment variables for compilation without devices; variables that are set are kept.

    Call it before JAX is initialised, in a separate process, since it restricts JAX to the CPU.
    """
    absent = [target for target in targets if target.family != "here"]
    if not absent:
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name, value in _LIBTPU.items():
        os.environ.setdefault(name, value)
    if any(target.family == "cuda" for target in absent):
        os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # checks libraries that compilation does not need
        flags = os.environ.get("XLA_FLAGS", "").split()
        named = {flag.partition("=")[0] for flag in flags}
        flags += [flag for flag in _CUDA_FLAGS if flag.partition("=")[0] not in named]
        os.environ["XLA_FLAGS"] = " ".join(flags)


def devices(target: Target) -> list[Any]:
    """The devices of `target`, for a mesh.

    Raises:
        MetarecError: the compiler plugin is not installed, or does not know the devices.
    """
    import jax
    from jax.experimental import topologies

    if target.family == "here":
        return jax.devices()
    if target.family == "tpu":
        _require("libtpu", target, "tpu")
        # For one chip, compile for one device of the smallest slice that libtpu describes.
        topology = TOPOLOGIES[target.name.partition(":")[0]][1] if target.chips == 1 else target.topology
        ask = {"topology_name": f"{target.name.partition(':')[0]}:{topology}"}
    else:
        _require("jax_plugins.xla_cuda13", target, "cuda")
        ask = {"topology_name": "", "topology": f"1x1x{target.chips}", "target_config": H100}
    platform = "tpu" if target.family == "tpu" else "cuda"
    try:
        with _silence():
            found = topologies.get_topology_desc(platform=platform, **ask).devices
    except Exception as error:  # the plugins raise many kinds of errors for unknown targets
        raise MetarecError(f"--target {target.name}: {_first_line(error)}") from error
    return list(found)[: target.chips]


def _require(module: str, target: Target, extra: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # the parent package is not installed
        found = None
    if found is None:
        raise MetarecError(
            f"--target {target.name} needs {module}, which is not installed: pip install 'metarec_jax[{extra}]'"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


@contextlib.contextmanager
def _silence() -> Any:
    """Suppress output of C++ libraries on stderr while they are loaded."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
