"""The environment of a measurement: versions, devices, flags, code and command, as JSON-ready values."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from typing import Any

PACKAGES = ("metarec_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "transformers")
PACKAGES += ("libtpu",)  # compiles for TPUs, also without a TPU
RIVALS = ("torch", "higher", "torchopt", "parallel-metalearn", "jax-meta", "dm-haiku")
"""Packages that benchmarks compare with; only installed ones are listed."""
FLAG_PREFIXES = ("JAX_", "XLA_", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LIBTPU_INIT_ARGS")
FLAG_PREFIXES += ("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE")


def environment() -> dict[str, Any]:
    """Collect everything about this process that can affect a result, for the "environment" entry of a JSON file.

    Returns:
        ``date`` (UTC), ``command``, ``git`` (commit and whether the code differs from it, or None outside a checkout
        of this package), ``python``, ``platform``, ``cpu``, ``packages`` (None for one that is not installed),
        ``devices`` (kind and number, from JAX), ``flags`` (environment variables that affect JAX, XLA or the number of
        threads) and, in a process that uses PyTorch, ``torch_threads``.
    """
    found = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command(),
        "git": _git(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": {"model": _cpu_model(), "usable": _usable_cpus()},
        "packages": {
            **{name: _version(name) for name in PACKAGES},
            **{name: version for name in RIVALS if (version := _version(name))},
        },
        "devices": _devices(),
        "flags": {name: value for name, value in sorted(os.environ.items()) if name.startswith(FLAG_PREFIXES)},
    }
    torch = sys.modules.get("torch")  # imported only by benchmarks that measure it
    return found if torch is None else {**found, "torch_threads": torch.get_num_threads()}


def summary(found: dict[str, Any]) -> str:
    """Summarise the result of `environment` in one line.

    >>> summary(environment()).startswith("jax ")
    True
    """
    packages, cpu, git = found["packages"], found["cpu"], found["git"]
    devices = ", ".join(f"{d['count']} x {d['kind']}" for d in found["devices"])
    code = f"metarec_jax {packages['metarec_jax']}"
    if git:
        code += f" at commit {git['commit'][:10]}{' with changes' if git['changed'] else ''}"
    return (
        f"jax {packages['jax']} on {devices} ({cpu['usable']} CPU threads, {cpu['model']}), "
        f"{found['python']}, {code}, {found['date']}"
    )


def command() -> str:
    """The command line of this process, without the folders of the interpreter and of scripts."""
    program, *arguments = sys.orig_argv
    if arguments and pathlib.Path(arguments[0]).parent == pathlib.Path(program).parent:
        program, *arguments = arguments  # a console script: the interpreter is not part of the command
    elif arguments and pathlib.Path(arguments[0]).is_absolute():
        arguments[0] = pathlib.Path(arguments[0]).name
    return shlex.join([pathlib.Path(program).name, *arguments])


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import jax

    kinds = [(d.device_kind, d.platform) for d in jax.devices()]
    return [
        {"kind": kind, "platform": where, "count": kinds.count((kind, where))} for kind, where in dict.fromkeys(kinds)
    ]


def _usable_cpus() -> int:
    """Number of CPU threads that this process may use; a container or taskset can reduce it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _git() -> dict[str, Any] | None:
    """The commit of the code that runs, where it runs from a checkout of this package."""
    file = pathlib.Path(__file__).resolve()
    here = file.parents[1]
    # An environment inside another repository is not a checkout of this package, so check whether git tracks this file.
    if _run_git(here, "ls-files", "--error-unmatch", str(file.relative_to(here))) is None:
        return None
    commit = _run_git(here, "rev-parse", "HEAD")
    changes = _run_git(here, "status", "--porcelain", "--untracked-files=no", ".")
    return {"commit": commit, "changed": bool(changes)} if commit else None


def _run_git(folder: pathlib.Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
