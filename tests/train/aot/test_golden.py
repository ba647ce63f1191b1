"""FLOPs, bytes, temporaries and collectives of compiled steps stay what they were.

The compiler is deterministic, so the figures are exact, for one version of it: a change of the package that moves one
shows here. Where it is meant, write them anew:

    python tests/train/aot/test_golden.py
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

import jax
import pytest

from metarec_jax import preset
from metarec_jax.config.run import Config
from metarec_jax.encoder import Execution
from metarec_jax.train.aot import estimate, targets, workload

pytestmark = pytest.mark.usefixtures("as_users_compile")

FILE = Path(__file__).with_name("golden.json")
FIGURES = ("flops", "bytes", "temporaries", "arguments", "collectives")


def case_of(name: str) -> tuple[Config, str]:
    """The config and the target of a case: "preset[ joint] on target[ x devices / shards]"."""
    what, _, where = name.partition(" on ")
    target, _, split = where.partition(" x ")
    devices, _, shards = split.partition(" / ")
    config = preset(what.split()[0])
    if what.endswith(" joint"):
        encoder = dataclasses.replace(config.encoder, train="all", compute="bfloat16")
        config = dataclasses.replace(config, encoder=encoder)
    train = dataclasses.replace(config.train, devices=int(devices or 1), shards=int(shards or 1))
    return dataclasses.replace(config, train=train), target


CPU = ("movielens-100k on here", "movielens-1m on here", "synthetic on here", "synthetic joint on here x 8 / 2")
SLOW = ("movielens-100k on here", "movielens-1m on here", "synthetic joint on here x 8 / 2")
TPU = ("movielens-100k on v5e:1x1", "synthetic joint on v5e:2x2")


def figures_of(name: str) -> dict[str, object]:
    """What the compiler says of a case now."""
    config, target = case_of(name)
    work = workload.workload(config, items=2000, users=1000, length=32, support=16)
    work = dataclasses.replace(work, run=Execution(scan=True, tokens_per_call=4096))
    found = estimate.estimate(work, targets.parse(target)).to_json()
    return {figure: found[figure] for figure in FIGURES}


def compiler_of(name: str) -> str:
    """The package whose version decides, with its version."""
    package = "libtpu" if " v5e" in name else "jaxlib"
    return f"{package} {importlib.metadata.version(package)}"


def kept() -> dict[str, dict[str, dict[str, object]]]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in [*CPU, *TPU]]
)
def test_a_step_stays_what_it_was(name):
    if name in TPU and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install 'metarec_jax[tpu]'")
    known, compiler = kept().get(name, {}), compiler_of(name)
    if compiler not in known:
        pytest.skip(f"compilers differ: figures are kept for {' and '.join(known) or 'none'}, installed is {compiler}")
    found = figures_of(name)
    assert {figure: found[figure] for figure in FIGURES} == known[compiler]


def write() -> None:
    """Writes the figures of this compiler, beside those of others."""
    golden = kept()
    for name in [*CPU, *TPU]:
        if name in CPU or importlib.util.find_spec("libtpu") is not None:
            golden.setdefault(name, {})[compiler_of(name)] = figures_of(name)
            print(name, golden[name][compiler_of(name)], flush=True)
            FILE.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    targets.prepare_process([targets.parse(case_of(name)[1]) for name in (*CPU, *TPU)])
    jax.config.update("jax_num_cpu_devices", 8)
    sys.exit(write())
