"""`metarec aot`: compile the outer step, or the encoding of texts, for accelerators that are not present."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import tyro

from metarec_jax.cli.arguments import (
    DEFAULT_CONFIG,
    ConfigFile,
    ConfigOptions,
    Json,
    Preset,
    check_range,
    choices,
    parse,
    prepare,
    print_json,
    starting_config,
)
from metarec_jax.config.run import DEFAULT_PRESET
from metarec_jax.core.environment import environment
from metarec_jax.core.errors import MetarecError
from metarec_jax.train.aot.encoder_sizes import ENCODER_SIZES


@dataclasses.dataclass(frozen=True)
class AotArguments:
    """Compile the outer step for accelerators that need not be present; report whether it fits and what it costs.

    Nothing runs and no data is read. Memory, FLOPs and collectives are those of the compiled program; cycles, times and
    users per second are estimates of the compiler, or from published figures, and not measured. TPUs need
    metarec_jax[tpu], GPUs metarec_jax[cuda]. Large encoders take minutes to compile.
    """

    target: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CHIP:TOPOLOGY")] = ("v5e:1x1",)
    """What to compile for: v5e:2x2, v5p:2x2x1, v6e:16x16, ... (1 to 256 chips), cuda:h100, cuda:h100:8, or here for the
    devices of this machine. Several targets make a table with one column each."""
    encoder: Annotated[str, choices(ENCODER_SIZES), tyro.conf.arg(name="encoder")] = ""
    """Encoder of this size, without its weights; "" is the encoder of --encoder.path."""
    users_per_chip: int = 0
    """Users per step on each chip; 0 is --train.users-per-step for all chips together."""
    items: int = 0
    """Items of the data set; 0 is their number in --data.source."""
    text_length: int = 32
    """Tokens of a text."""
    texts_per_chip: int = 0
    """Compile the encoding of this many texts on each chip by a frozen encoder, whose parameters are stored in the
    precision of --encoder.compute, in place of the outer step; 0 compiles the step."""
    split: int = 1
    """Chips that hold one copy of the frozen encoder, each a part, with --texts-per-chip."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile at a lower optimization level, in about a third of the time; compare such results only with each
    other."""
    preset: Preset = DEFAULT_PRESET
    config_file: ConfigFile = ""
    json: Json = False
    config: ConfigOptions = DEFAULT_CONFIG


def run(arguments: Sequence[str]) -> int:
    """Run `metarec aot` and return the exit status."""
    _, base = starting_config("aot", arguments)
    chosen = parse(AotArguments, "aot", arguments, AotArguments(config=base))
    check_range("--users-per-chip", chosen.users_per_chip, 0, 1_000_000)
    check_range("--items", chosen.items, 0, 2**31 - 1)
    check_range("--text-length", chosen.text_length, 3, 100_000)
    check_range("--texts-per-chip", chosen.texts_per_chip, 0, 100_000_000)
    check_range("--split", chosen.split, 1, 256)
    if chosen.split > 1 and not chosen.texts_per_chip:
        raise MetarecError(
            f"--split is {chosen.split}, but it divides the encoder of --texts-per-chip alone: give that, or use "
            "--train.shards with --encoder.train all or lora"
        )
    if chosen.encoder and chosen.encoder not in ENCODER_SIZES:
        raise MetarecError(f"--encoder is {chosen.encoder!r}; it must be one of {', '.join(ENCODER_SIZES)}")
    from metarec_jax.train.aot import targets

    wanted = [targets.parse(name) for name in chosen.target]
    targets.prepare_process(wanted)  # before JAX looks for devices
    reporter = prepare(chosen.config)
    from metarec_jax.train.aot import encoding, estimate, report, workload

    found = []
    for target in wanted:
        config, users = chosen.config, chosen.users_per_chip * max(target.chips, 1)
        if users:
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, users_per_step=users))
        work = workload.workload(config, encoder=chosen.encoder, items=chosen.items, length=chosen.text_length)
        reporter.note(f"compiling for {target.name}")
        level = "O1" if chosen.quick else ""
        if chosen.texts_per_chip:
            sizes = {"texts": chosen.texts_per_chip, "shards": chosen.split}
            found.append(encoding.estimate_encoding(work, target, level=level, **sizes))
        else:
            found.append(estimate.estimate(work, target, level=level))
    if chosen.json:
        print_json({"environment": environment(), "estimates": [one.to_json() for one in found]})
    else:
        report.show(found, "texts" if chosen.texts_per_chip else "users")
    return 0
