"""The run folder: what a run leaves behind, and what every later command starts from.

    config.json        every choice of the run, and the version of this layout
    catalogue.parquet  the items: ids, titles, texts, details, and the training users' statistics of each
    tables.safetensors embeddings of the items
    metrics.jsonl      one line an epoch
    checkpoints/       orbax
    inputs.json        digest of the data and the encoder that the run began with
    parameters.safetensors  the best parameters so far (see `metarec_jax.train.parameters`)
    tables/, plots/    what `metarec evaluate` writes

Nothing in it is code, and reading it runs none.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metarec_jax.config.json_io import parse, to_json
from metarec_jax.config.legacy import LAYOUT, READABLE, upgrade
from metarec_jax.config.run import Config
from metarec_jax.core.atomic_files import explained, make_folder, write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.plugins import plugins_of, require_plugins


class Run:
    """A run folder that exists; `config` is a `Config`, or what another kind of run is made from."""

    def __init__(self, folder: Path, config: Any):
        self.folder = folder
        self.config = config

    @property
    def checkpoints(self) -> Path:
        """Where orbax keeps the states."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, one line an epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def catalogue(self) -> Path:
        """The items, as Parquet."""
        return self.folder / "catalogue.parquet"

    @property
    def beliefs(self) -> Path:
        """What was learned of the items."""
        return self.folder / "beliefs.safetensors"

    @property
    def parameters(self) -> Path:
        """The parameters with the least validation loss so far."""
        return self.folder / "parameters.safetensors"

    @property
    def beginning(self) -> Path:
        """What an earlier run had learned, where training began with it."""
        return self.folder / "beginning.safetensors"

    @property
    def embeddings(self) -> Path:
        """Embeddings of the items, as safetensors."""
        return self.folder / "tables.safetensors"

    @property
    def inputs(self) -> Path:
        """The digest of data and encoder that the run began with."""
        return self.folder / "inputs.json"

    def keep_inputs(self, digest: str) -> None:
        """Keep the digest of what the run reads; where there is one already, check that it is the same.

        Raises:
            MetarecError: data or encoder are no longer what the run began with.
        """
        if not self.inputs.exists():  # a new run, or one that was killed before it was written
            write_text(self.inputs, json.dumps({"sha256": digest}) + "\n")
            return
        try:
            kept = json.loads(self.inputs.read_text(encoding="utf-8"))["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            kept = None
        if kept != digest:
            raise MetarecError(
                f"{self.inputs}: the data or the encoder are no longer those that the run began with: bring them back "
                "as they were, or start a new run"
            )

    @property
    def tables(self) -> Path:
        """Where evaluation writes its figures."""
        return make_folder(self.folder / "tables")

    @property
    def plots(self) -> Path:
        """Where evaluation draws."""
        return make_folder(self.folder / "plots")

    def append_metrics(self, line: dict[str, Any]) -> None:
        """Adds one line to ``metrics.jsonl``."""
        with explained(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def read_metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a line that a crash cut short ends them."""
        if not self.metrics.exists():
            return
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return

    def keep_metrics(self, last: int) -> None:
        """Drop the lines of steps after the `last`: they belong to work that was not saved and is done again."""
        kept = [json.dumps(line) for line in self.read_metrics() if line["step"] <= last]
        write_text(self.metrics, "".join(line + "\n" for line in kept))


def check_place(folder: Path, *, command: str = "train") -> None:
    """Check that a run can be made in a folder, without making anything.

    Args:
        folder: folder of the run.
        command: command of `metarec`, for the message.

    Raises:
        MetarecError: there is a run already, or the folder cannot be written.
    """
    if (folder / "config.json").exists():
        raise MetarecError(_already(folder, command))
    present = folder
    while not present.exists() and present != present.parent:
        present = present.parent
    with explained(folder):
        try:
            with tempfile.TemporaryFile(dir=present):
                pass
        except OSError as error:  # which names the temporary file
            raise OSError(error.errno, error.strerror, str(folder)) from error


def _already(folder: Path, command: str) -> str:
    return (
        f"{folder} already holds a run: continue it with `metarec {command} --resume {folder}`, "
        "or give another folder with --out"
    )


def create(folder: Path, config: Any, *, command: str = "train", fill: Callable[[Run], None] = lambda run: None) -> Run:
    """Make a new run folder.

    Args:
        folder: folder of the run.
        config: what the run is made from.
        command: command of `metarec`, which makes and continues runs of this kind.
        fill: writes what else belongs to a run that has just begun.

    Raises:
        MetarecError: there is a run already, or the folder cannot be written. Then nothing that was written stays.
    """
    if (folder / "config.json").exists():
        raise MetarecError(_already(folder, command))
    existed = folder.is_dir()
    before = set(folder.iterdir()) if existed else set()
    run = Run(folder, config)
    try:
        make_folder(folder)
        kind = {} if command == "train" else {"command": command}
        plugins = plugins_of(config)
        needs = {"plugins": plugins} if plugins else {}
        document = {"layout": LAYOUT, **kind, **needs, **json.loads(to_json(config))}
        write_text(folder / "config.json", json.dumps(document, indent=2) + "\n")
        fill(run)
    except BaseException:
        with contextlib.suppress(OSError):
            for path in set(folder.iterdir()) - before:
                path.unlink()
            if not existed:
                folder.rmdir()
        raise
    return run


def open_run(folder: Path, *, command: str = "train", base: Any = None) -> Run:
    """Opens a run folder.

    Args:
        folder: where.
        command: command of `metarec`, which made the run.
        base: default values of its config; `Config()` where None.

    Raises:
        MetarecError: no run there, a run of another version or kind, or a config.json that is not one.
    """
    path = folder / "config.json"
    if not path.is_file():
        remedy = f"make a run with `metarec {command} --out " + str(folder) + "`"
        raise MetarecError(f"{folder} is not a run folder: {path} does not exist; {remedy}, or name another folder")
    try:
        text = path.read_text(encoding="utf-8")
        document = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise MetarecError(f"{path}: not valid JSON ({error}); the run cannot be read") from error
    layout = document.pop("layout", None) if isinstance(document, dict) else None
    if layout not in READABLE:
        raise MetarecError(
            f"{path}: the run has layout version {layout!r}, and this version of metarec_jax reads "
            f"{' and '.join(map(str, READABLE))}: "
            "train it again, or use the version that made it"
        )
    require_plugins(document.pop("plugins", []), str(folder))
    made_by = document.pop("command", "train")
    if made_by != command:
        raise MetarecError(
            f"{folder} is a run of `metarec {made_by}`, and not of `metarec {command}`: name one of those"
        )
    return Run(folder, parse(json.dumps(upgrade(document, layout)), where=str(path), base=base or Config()))
