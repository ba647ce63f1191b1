"""Code shared by the commands: common options, the config that options start from, and run folders.

Importing this module imports no JAX.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import tyro

from metarec_jax.config.json_io import Chosen
from metarec_jax.config.json_io import parse as parse_json
from metarec_jax.config.legacy import READABLE, upgrade
from metarec_jax.config.paths import paths_of
from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.config.run import DEFAULT_PRESET, PRESETS, Config, for_clicks, preset
from metarec_jax.core import compile_cache, console, processes
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.errors import MetarecError, Stopped, shown
from metarec_jax.core.jax_settings import check_jax, import_jax
from metarec_jax.core.json_files import read_json
from metarec_jax.core.kinds import LEARNERS, UPDATERS
from metarec_jax.core.plugins import require_plugins
from metarec_jax.core.progress import QUIET, Reporter

RUNS = Path("runs")
"""Default folder of runs and evaluations."""
DEFAULT_CONFIG = preset(DEFAULT_PRESET)

Arguments = TypeVar("Arguments")

MOST_TRACED = 10_000
"""Largest number of steps in a profile, which takes up to a megabyte for each."""
OF_THE_CALL = ("json", "trace", "tracker", "distributed", "detect", "wait")
"""Options of trainings that hold for one process, and are not kept in the run."""


# Options of several commands


def choices(names: Iterable[str]) -> Any:
    """Return the annotation of an option whose help text lists the choices `names`."""
    return tyro.conf.arg(metavar="{" + ",".join(names) + "}")


Json = Annotated[
    tyro.conf.FlagCreatePairsOff[bool],
    tyro.conf.arg(help="Print the result as JSON, and nothing else, on stdout."),
]
Preset = Annotated[str, choices(PRESETS), tyro.conf.arg(help="Preset that the options start from.")]
ConfigFile = Annotated[
    str,
    tyro.conf.arg(
        name="config",
        metavar="FILE.json",
        help="Options as JSON, in the form of a run's config.json. Options that it leaves out come from the preset.",
    ),
]
ConfigOptions = Annotated[Config, tyro.conf.arg(name="")]
TrainedRun = Annotated[
    str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="Run folder of a finished training.")
]
RunFolder = Annotated[str, tyro.conf.arg(metavar="RUN")]
Folder = Annotated[str, tyro.conf.arg(metavar="FOLDER")]
Trace = Annotated[
    int,
    tyro.conf.arg(
        metavar="N",
        help="Profile N training steps with JAX's profiler, into RUN/profile; the first steps, which compile, are not "
        "among them.",
    ),
]
TrackerNames = Annotated[
    tyro.conf.UseAppendAction[tuple[str, ...]],
    tyro.conf.arg(
        metavar="NAME",
        help="Send the lines of metrics.jsonl to a tracker while training: tensorboard (into RUN/tensorboard), or one "
        "that a --plugin registers. May be given several times.",
    ),
]
Ratings = Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TITLE=RATING")]
ItemCount = Annotated[int, tyro.conf.arg(aliases=("-k",), metavar="N")]


# Parsing


def parse(kind: type[Arguments], command: str, arguments: Sequence[str], default: Arguments | None = None) -> Arguments:
    """Parse the arguments of a command; invalid ones end the process with status 2 and a message on stderr.

    Args:
        kind: dataclass of the command's options; its docstrings are the help text.
        command: name of the command.
        arguments: arguments after the name on the command line.
        default: values of the options that `arguments` leave out; the defaults of `kind` where None.

    Returns:
        The options.
    """
    return tyro.cli(kind, prog=f"metarec {command}", args=list(arguments), default=default)


def starting_config(
    command: str, arguments: Sequence[str], base: Callable[[str], Chosen] = preset
) -> tuple[str, Chosen]:
    """Read --preset, --config and the kinds of learner and updater, which determine the other options.

    Args:
        command: name of the command.
        arguments: all arguments of the command.
        base: maps the name of a preset to its config.

    Returns:
        A name for the run (the name of the file, or of the preset without a file), and the config.

    Raises:
        MetarecError: the preset is unknown, or the file holds no config.
    """
    name = early_option(command, arguments, "--preset") or DEFAULT_PRESET
    config, file = base(name), early_option(command, arguments, "--config")
    if file:
        name, config = Path(file).stem, _read_config(Path(file), config)
    if isinstance(config, Config) and config.data.kind == "rating":
        clicks = early_option(command, arguments, "--data.kind") == "click"
        if clicks and not file and early_option(command, arguments, "--data.negatives") in ("", "0"):
            config = cast("Chosen", for_clicks(config))
    for registry in (LEARNERS, UPDATERS):
        section, _, field = registry.option.partition(".")
        if hasattr(config, section) and (kind := early_option(command, arguments, f"--{registry.option}")):
            # A kind may conflict with the options read so far and agree with later ones. The full parse checks all.
            with contextlib.suppress(MetarecError):
                config = parse_json(json.dumps({section: {field: kind}}), where=registry.option, base=config)
    return name, config


def early_option(command: str, arguments: Sequence[str], option: str) -> str:
    """Read one option ahead of the others, whose defaults depend on it.

    Args:
        command: name of the command.
        arguments: all arguments of the command.
        option: name of the option, with its dashes.

    Returns:
        The value of the option; "" if it is not given.
    """
    early = argparse.ArgumentParser(prog=f"metarec {command}", add_help=False, allow_abbrev=False)
    early.add_argument(option, dest="value", default="")
    return early.parse_known_args(arguments)[0].value


def _read_config(path: Path, base: Chosen) -> Chosen:
    tree = read_json(path, option="--config")
    if isinstance(tree, dict) and "layout" in tree:  # config.json of a run folder, which holds more than the config
        layout, _ = tree.pop("layout"), tree.pop("command", "")
        require_plugins(tree.pop("plugins", []), str(path))
        tree = upgrade(tree, layout, str(path)) if type(layout) is int and layout in READABLE else tree
    return parse_json(json.dumps(tree), where=str(path), base=base)


def check_range(option: str, value: int, least: int, most: int) -> None:
    """Raise an error if the value of an option is less than its minimum or greater than its maximum.

    Args:
        option: name of the option, with its dashes.
        value: the given value.
        least: the smallest value allowed.
        most: the greatest value that can be computed in any time or memory.

    Raises:
        MetarecError: `value` is less than `least` or greater than `most`.
    """
    if value < least:
        raise MetarecError(f"{option} is {shown(value)}; it must be at least {least}")
    if value > most:
        raise MetarecError(f"{option} is {shown(value)}; it must be at most {most}, or the command would not end")


def named_paths(config: Chosen, default: Chosen) -> tuple[dict[str, str], bool]:
    """Separate the paths of data and encoder on the command line from options that change the run itself.

    Args:
        config: config from the command line.
        default: config without options.

    Returns:
        The given paths by option name, and whether any other option was given.
    """
    before = paths_of(default)
    given = {name: path for name, path in paths_of(config).items() if path != before[name]}
    return given, _other_options(config) != _other_options(default)


def _other_options(config: Any) -> dict[str, Any]:
    """All options of a config that are no paths."""
    tree = dataclasses.asdict(config)
    for name in paths_of(config):
        section, _, field = name.partition(".")
        del tree[section][field]
    return tree


def check_resume(chosen: Any) -> dict[str, str]:
    """Check that --resume is combined only with new paths of data and encoder, and with options of the call.

    Args:
        chosen: options of the command, with fields ``resume``, ``config`` and `OF_THE_CALL`.

    Returns:
        The new paths by option name.

    Raises:
        MetarecError: another option differs from its default.
    """
    default = type(chosen)()
    paths, more = named_paths(chosen.config, default.config)
    call = {name: getattr(default, name) for name in OF_THE_CALL if hasattr(default, name)}
    if chosen.resume and (more or dataclasses.replace(chosen, resume="", config=default.config, **call) != default):
        options = ", ".join(f"--{name}" for name in call)
        raise MetarecError(
            f"--resume takes no option but {options} and new places of data and encoder (--data.path, --encoder.path): "
            f"training continues with the options in {chosen.resume}/config.json; leave out the others"
        )
    return paths


# Run folders


def run_name(name: str, config: Config | PretrainConfig) -> str:
    """Choose the name of a run in `RUNS`.

    Args:
        name: name of the run if the data has no path.
        config: config of the run; the file name of its data path becomes the name.

    Returns:
        The name.
    """
    return Path(config.data.path).stem or name if config.data.path else name


def place(path: str) -> Path:
    """Return the absolute form of a path from the command line."""
    return Path(path).expanduser().resolve()


@contextlib.contextmanager
def held_folder(chosen: Any, name: str, command: str) -> Iterator[Path]:
    """Lock the folder of a training, so that no other process starts or continues a training in it.

    Args:
        chosen: options of the command, with fields ``resume`` and ``out``.
        name: prefix of the name of a new folder, used if ``out`` is "".
        command: `train` or `pretrain`.

    Yields:
        The absolute path of the folder.

    Raises:
        MetarecError: another process has locked the folder, or a new training would start in the folder of a run.
    """
    from metarec_jax.train import run_folder

    def checked_folder() -> Path:
        if chosen.resume:
            folder = place(chosen.resume)
            if not (folder / "config.json").exists():
                run_folder.open_run(folder, command=command)  # raises an error that states the fault
            return folder
        folder = place(chosen.out) if chosen.out else free_folder(name).resolve()
        run_folder.check_place(folder, command=command)
        return folder

    # The first of several processes decides; `hold` checks that a folder that was named is the same for all.
    folder = Path(processes.from_first("folder", lambda: str(checked_folder())))
    named = chosen.resume or chosen.out
    with run_folder.hold(place(named) if named else folder):
        yield place(named) if named else folder


def free_folder(name: str, folder: Path = RUNS, first: int = 1) -> Path:
    """Find the first of ``folder/name-1``, ``folder/name-2``, ... that does not exist.

    Args:
        name: beginning of the folder's name.
        folder: parent folder.
        first: the first number to try.

    Returns:
        The path.
    """
    number = first
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"


# Running


def prepare(config: Config | PretrainConfig = DEFAULT_CONFIG) -> Reporter:
    """Enable JAX's compilation cache in the cache folder of `config`, and return the progress reporter for stderr.

    This imports JAX.
    """
    from metarec_jax.data.sources.find import cache_folder

    import_jax()
    compile_cache.keep_compilations(cache_folder(config.data.cache))
    check_jax()
    return console.make_reporter() if processes.is_first() else QUIET


def keep_stdout() -> None:
    """Keep stdout for results: what libraries in C++ print there, as the collectives of CPUs do, goes to stderr."""
    if not isinstance(sys.stdout, io.TextIOWrapper) or sys.stdout.fileno() != 1:
        return
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = open(own, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115 - for good


def print_json(tree: Any) -> None:
    """Print `tree` on stdout as JSON."""
    unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    print(json.dumps(tree, ensure_ascii=not unicode, indent=2))


def stopped(number: signal.Signals, step: int, command: str) -> int:
    """Report that a training was saved after a signal.

    Args:
        number: the signal.
        step: training steps taken.
        command: the command that continues the training.

    Returns:
        The exit status.
    """
    print(
        f"metarec: stopped by {number.name} after {step} steps; everything is saved. Continue with: {command}",
        file=sys.stderr,
    )
    return 128 + number


@contextlib.contextmanager
def resumable(folder: Path, reporter: Reporter) -> Iterator[None]:
    """Report on Ctrl-C or SIGTERM within the block that the same command continues from `folder`.

    Args:
        folder: folder of the finished parts.
        reporter: prints the note.

    Yields:
        None.
    """
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        reporter.note(f"finished parts are kept in {path_argument(folder)}: run the same command again to continue")
        raise
