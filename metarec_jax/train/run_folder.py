"""The run folder, which holds the files of a run for later commands.

    config.json        all options of the run, and the version of this layout
    catalogue.parquet  the items: ids, titles, texts, details, and the training users' statistics of each
    tables.safetensors embeddings of the items
    pictures.arrow     small copies of the items' pictures, where they have any
    metrics.jsonl      one line per epoch
    checkpoints/       orbax
    goodput.json       seconds of the training so far by phase
    inputs.json        digest of the data and the encoder at the start of the run
    about.json         data set, division and software at the start of the run (see `metarec_jax.train.about`)
    card.md            model card (see `metarec_jax.train.card`)
    parameters.safetensors  the best parameters so far (see `metarec_jax.train.parameters`)
    profile/, tensorboard/  output of `metarec train --trace` and `--tracker tensorboard`
    tables/, plots/    output of `metarec evaluate`
    .lock              lock of the process that trains in the folder

A run folder contains no code, and reading it executes none. One process at a time writes into a run folder (`hold`);
readers take no lock.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from metarec_jax.config.json_io import parse, to_json
from metarec_jax.config.legacy import LAYOUT, READABLE, located, upgrade
from metarec_jax.config.paths import missing
from metarec_jax.config.run import Config
from metarec_jax.core import arguments, locks, processes
from metarec_jax.core.atomic_files import explained, make_folder, remove_leftovers, write_text
from metarec_jax.core.checked_files import reading
from metarec_jax.core.command_paths import path_argument, relative
from metarec_jax.core.errors import MetarecError, shown
from metarec_jax.core.json_files import MOST_BYTES, parse_json, read_json
from metarec_jax.core.plugins import plugins_of, require_plugins
from metarec_jax.core.regular_files import read_regular

PARTS = {
    "sha256": "the data or the encoder",
    "ratings": "the ratings",
    "items": "titles, texts or details of items",
    "users": "texts of users",
    "vectors": "vectors of items",
    "encoder": "the encoder",
    "reading": "encoder.pooling, prompts or max_length in config.json",
}
"""Name for messages of the input that each digest in inputs.json covers."""
_HELD: set[Path] = set()
"""Folders that this process has locked."""
_SEEN_AFTER = 20
"""Seconds after which a new file of another machine is seen in a shared folder."""


class Run:
    """An existing run folder; `config` is a `Config`, or the config of another kind of run."""

    def __init__(self, folder: Path, config: Any):
        self.folder = folder.resolve()
        self.config = config

    @property
    def checkpoints(self) -> Path:
        """Folder of orbax checkpoints."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        """File of metrics: one JSON object per line, one line per epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def catalogue(self) -> Path:
        """File of the items, as Parquet."""
        return self.folder / "catalogue.parquet"

    @property
    def pictures(self) -> Path:
        """File of small copies of the items' pictures, in Arrow's format; there is none where no item has a picture."""
        return self.folder / "pictures.arrow"

    @property
    def beliefs(self) -> Path:
        """File of the item factors, as safetensors."""
        return self.folder / "beliefs.safetensors"

    @property
    def parameters(self) -> Path:
        """File of the parameters with the least validation loss so far."""
        return self.folder / "parameters.safetensors"

    @property
    def beginning(self) -> Path:
        """File of the parameters of an earlier run, if training started from them."""
        return self.folder / "beginning.safetensors"

    @property
    def embeddings(self) -> Path:
        """File of the items' embeddings, as safetensors."""
        return self.folder / "tables.safetensors"

    @property
    def goodput(self) -> Path:
        """File of the seconds of the training so far by phase, as JSON."""
        return self.folder / "goodput.json"

    @property
    def inputs(self) -> Path:
        """File of the digests of data and encoder at the start of the run."""
        return self.folder / "inputs.json"

    def keep_inputs(self, digests: Mapping[str, str]) -> None:
        """Store the digests of the inputs of a new run."""
        write_text(self.inputs, json.dumps(dict(digests), indent=1) + "\n")

    def check_inputs(self, digests: Mapping[str, str]) -> None:
        """Check that the inputs of a run have not changed since its start.

        Digests that a run of an earlier version did not store are not checked.

        Args:
            digests: digest of each input, as for `keep_inputs`.

        Raises:
            MetarecError: an input has changed; the message names it.
        """
        if not self.inputs.exists():
            return
        try:
            kept = read_json(self.inputs)
            changed = [name for name, digest in digests.items() if kept.get(name, digest) != digest]
        except (MetarecError, AttributeError):
            changed = ["sha256"]
        if changed:
            what = ", ".join(PARTS.get(name, name) for name in changed if name != "sha256" or len(changed) == 1)
            raise MetarecError(
                f"{self.inputs}: {what}: no longer what the run began with: bring that back as it was, or start a new "
                "run"
            )

    @property
    def tables(self) -> Path:
        """Folder of evaluation tables."""
        return make_folder(self.folder / "tables")

    @property
    def plots(self) -> Path:
        """Folder of plots."""
        return make_folder(self.folder / "plots")

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``."""
        with explained(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of ``metrics.jsonl``, up to a line that a crash truncated or that is no line of metrics."""
        if not self.metrics.exists():
            return
        with reading(self.metrics, "move it away; training writes its lines of later epochs again"):
            text = read_regular(self.metrics, MOST_BYTES)
        for line in text.splitlines():
            try:
                found = parse_json(line, where=str(self.metrics), non_finite=True)
            except MetarecError:
                return
            if not isinstance(found, dict) or not isinstance(found.get("step"), int):
                return
            yield found

    def keep_metrics(self, last: int) -> None:
        """Remove the lines of steps after `last`, which are repeated because their states were not saved."""
        kept = [json.dumps(line) for line in self.read_metrics() if line["step"] <= last]
        write_text(self.metrics, "".join(line + "\n" for line in kept))


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Lock a folder for writing, and remove temporary files of killed processes.

    The folder and its parents are created if they do not exist, and then removed at the end if they are still empty. A
    process that has locked the folder may lock it again. Of several processes the first locks the folder for all.

    Args:
        folder: folder of a run, or of another resumable task.

    Yields:
        None.

    Raises:
        MetarecError: another process has locked the folder, or it cannot be written; or one of several processes sees
            another folder there.
    """
    folder = folder.resolve()
    if folder in _HELD:
        yield
        return
    with _locked(folder) if processes.is_first() else contextlib.nullcontext():
        _HELD.add(folder)
        try:
            _check_shared(folder)
            yield
        finally:
            _HELD.discard(folder)


def _check_shared(folder: Path) -> None:
    """Check that all processes see the same folder, by a file that the first one writes there.

    Raises:
        MetarecError: this process does not.
    """
    if processes.count() == 1:
        return
    mark, until = folder / ".shared", time.monotonic() + _SEEN_AFTER

    def write() -> str:
        token = secrets.token_hex(8)
        write_text(mark, token)
        return token

    token = processes.from_first("mark of the folder", write)
    while not (mark.exists() and mark.read_text() == token):
        if time.monotonic() > until:
            raise MetarecError(
                f"{path_argument(folder)} in {processes.named(processes.index())} is another folder than in "
                f"{processes.named(0)}: name a folder on a file system that all processes share"
            )
        time.sleep(0.1)
    processes.barrier("the run folder")
    if processes.is_first():
        mark.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder that this process has not locked yet."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locks.hold(folder / ".lock", f"the folder {path_argument(folder)}"):
            remove_leftovers(folder)
            yield
    finally:
        with contextlib.suppress(OSError):  # the folder is not empty
            for path in made:
                path.rmdir()


def check_place(folder: Path, *, command: str = "train") -> None:
    """Check that a run can be created in a folder, without creating anything.

    Args:
        folder: folder of the run.
        command: command of `metarec`, for the message.

    Raises:
        MetarecError: the folder holds a run already, or cannot be written.
    """
    _refuse_run(folder, command)
    present = folder.resolve()
    while not present.exists() and present != present.parent:
        present = present.parent
    with explained(folder):
        try:
            with tempfile.TemporaryFile(dir=present):
                pass
        except OSError as error:  # its file name is that of the temporary file
            raise OSError(error.errno, error.strerror, str(folder)) from error


def _refuse_run(folder: Path, command: str) -> None:
    if (folder / "config.json").exists():
        raise MetarecError(
            f"{folder} already holds a run: continue it with `metarec {command} --resume {path_argument(folder)}`, "
            "or give another folder with --out"
        )


def create(folder: Path, config: Any, *, command: str = "train", fill: Callable[[Run], None] = lambda run: None) -> Run:
    """Create a run folder.

    Args:
        folder: folder of the run.
        config: config of the run.
        command: command of `metarec` that creates and continues runs of this kind.
        fill: writes the other files of a new run. The config is written last, so that a folder with a config is a
            complete run, and a run can be created again in a folder that a killed process left without a config.

    Returns:
        The run.

    Raises:
        MetarecError: the folder holds a run, another process has locked it, or it cannot be written. New files are then
            removed.
    """
    run = Run(folder, config)
    with hold(run.folder):
        _refuse_run(run.folder, command)
        before = set(run.folder.iterdir())
        try:
            fill(run)
            write_config(run, command)
        except BaseException:
            with contextlib.suppress(OSError):
                for path in set(run.folder.iterdir()) - before:
                    path.unlink()
            raise
    return run


def check_paths(run: Run, command: str) -> None:
    """Check that the paths in the config of a run exist.

    Args:
        run: the run folder.
        command: command of `metarec` with its arguments, to which the message appends the option for a new path.

    Raises:
        MetarecError: a path does not exist; the message names its option.
    """
    for option, path in missing(run.config).items():
        kind = "" if Path(path).is_absolute() else ", a path relative to the folder that the run was started in"
        raise MetarecError(
            f"{run.folder / 'config.json'}: {option} is {path!r}{kind}, and nothing is there: bring it back, or name "
            f"its new place: `metarec {command} {path_argument(run.folder)} --{option.replace('_', '-')} NEW`"
        )


def write_config(run: Run, command: str = "train") -> None:
    """Write a run's config.json.

    Args:
        run: the run folder.
        command: command of `metarec` that creates and continues runs of this kind.
    """
    kind = {} if command == "train" else {"command": command}
    plugins = plugins_of(run.config)
    needs = {"plugins": plugins} if plugins else {}
    document = {"layout": LAYOUT, **kind, **needs, **json.loads(to_json(run.config))}
    write_text(run.folder / "config.json", json.dumps(document, indent=2) + "\n")


@arguments.takes(folder=arguments.path, command=arguments.text)
def open_run(folder: str | Path, *, command: str = "train", base: Any = None) -> Run:
    """Open a run folder.

    Args:
        folder: folder of the run.
        command: command of `metarec` that created the run.
        base: default values of the config; None uses `Config()`.

    Returns:
        The run folder.

    Raises:
        MetarecError: there is no run, the run is of another version or kind, or config.json is not valid.
    """
    folder = Path(folder)
    path = folder / "config.json"
    try:
        document = read_json(path, remedy="the run cannot be read; restore it from a copy, or train it again")
    except MetarecError as error:
        if not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            raise
        raise MetarecError(
            f"{relative(folder)} is not a run folder: {relative(path)} does not exist; make a run with "
            f"`metarec {command} --out {path_argument(folder)}`, or name another folder"
        ) from error
    layout = document.pop("layout", None) if isinstance(document, dict) else None
    if type(layout) is not int or layout not in READABLE:
        raise MetarecError(
            f"{path}: the run has layout version {shown(layout)}, and this version of metarec_jax reads "
            f"{', '.join(map(str, READABLE))}: train it again, or use the version that made it"
        )
    require_plugins(document.pop("plugins", []), str(folder))
    made_by = document.pop("command", "train")
    if made_by != command:
        if not isinstance(made_by, str) or not made_by.isalpha():
            raise MetarecError(f"{path}: command is {shown(made_by)}; it must be the name of a command of metarec")
        raise MetarecError(
            f"{folder} is a run of `metarec {made_by}`, and not of `metarec {command}`: name one of those"
        )
    config = parse(json.dumps(upgrade(document, layout, str(path))), where=str(path), base=base or Config())
    return Run(folder, located(config, layout))
