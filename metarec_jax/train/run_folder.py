"""The run folder: the files of a run, from which every later command starts.

    config.json        all options of the run, and the version of this layout
    catalogue.parquet  the items: ids, titles, texts, details, and the training users' statistics of each
    tables.safetensors embeddings of the items
    metrics.jsonl      one line per epoch
    checkpoints/       orbax
    inputs.json        digest of the data and the encoder at the start of the run
    parameters.safetensors  the best parameters so far (see `metarec_jax.train.parameters`)
    tables/, plots/    results of `metarec evaluate`

It holds no code, and reading it runs none.
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
from metarec_jax.core import arguments
from metarec_jax.core.atomic_files import explained, make_folder, write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.plugins import plugins_of, require_plugins


class Run:
    """An existing run folder; `config` is a `Config`, or the config of another kind of run."""

    def __init__(self, folder: Path, config: Any):
        self.folder = folder
        self.config = config

    @property
    def checkpoints(self) -> Path:
        """Folder of orbax checkpoints."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        """Metrics: one JSON object per line, one line per epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def catalogue(self) -> Path:
        """The items, as Parquet."""
        return self.folder / "catalogue.parquet"

    @property
    def beliefs(self) -> Path:
        """Factors of the items."""
        return self.folder / "beliefs.safetensors"

    @property
    def parameters(self) -> Path:
        """The parameters with the least validation loss so far."""
        return self.folder / "parameters.safetensors"

    @property
    def beginning(self) -> Path:
        """Parameters of an earlier run, if training started from them."""
        return self.folder / "beginning.safetensors"

    @property
    def embeddings(self) -> Path:
        """Embeddings of the items, as safetensors."""
        return self.folder / "tables.safetensors"

    @property
    def inputs(self) -> Path:
        """Digest of data and encoder at the start of the run."""
        return self.folder / "inputs.json"

    def keep_inputs(self, digest: str) -> None:
        """Store the digest of the run's inputs; if there is one already, check that it is equal.

        Raises:
            MetarecError: data or encoder differ from those at the start of the run.
        """
        if not self.inputs.exists():  # a new run, or one that was killed before it wrote the file
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
        """Yield the lines of ``metrics.jsonl``, up to a line that a crash truncated."""
        if not self.metrics.exists():
            return
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return

    def keep_metrics(self, last: int) -> None:
        """Drop the lines of steps after `last`, whose states were not saved and whose steps are repeated."""
        kept = [json.dumps(line) for line in self.read_metrics() if line["step"] <= last]
        write_text(self.metrics, "".join(line + "\n" for line in kept))


def check_place(folder: Path, *, command: str = "train") -> None:
    """Check that a run can be created in a folder, without creating anything.

    Args:
        folder: folder of the run.
        command: command of `metarec`, for the message.

    Raises:
        MetarecError: the folder holds a run already, or cannot be written.
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
        except OSError as error:  # its file name is that of the temporary file
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
        config: config of the run.
        command: command of `metarec` that makes and continues runs of this kind.
        fill: writes further files of a new run.

    Returns:
        The run folder.

    Raises:
        MetarecError: the folder holds a run already, or cannot be written. Then all written files are removed.
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


@arguments.takes(folder=arguments.path, command=arguments.text)
def open_run(folder: str | Path, *, command: str = "train", base: Any = None) -> Run:
    """Open a run folder.

    Args:
        folder: folder of the run.
        command: command of `metarec` that made the run.
        base: default values of its config; None takes `Config()`.

    Returns:
        The run folder.

    Raises:
        MetarecError: there is no run, the run is of another version or kind, or config.json is not valid.
    """
    folder = Path(folder)
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
    return Run(folder, parse(json.dumps(upgrade(document, layout, str(path))), where=str(path), base=base or Config()))
