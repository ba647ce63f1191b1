"""From a config and a folder to a pretrained encoder: what is looked at first, and what is written in which order."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from metarec_jax import encoder as encoders
from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.core.atomic_files import explained, write_text
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.encoder import merge_lora
from metarec_jax.train import run_folder
from metarec_jax.train.pretraining.build import Pretraining, assemble
from metarec_jax.train.pretraining.held_out import mark
from metarec_jax.train.pretraining.loop import Pretrained, fit
from metarec_jax.train.run_folder import Run
from metarec_jax.train.start import check_place

COMMAND = "pretrain"
"""Of `metarec`, which makes runs of this kind."""


def pretrain(config: PretrainConfig, folder: str | Path, *, reporter: Reporter = QUIET) -> Path:
    """Pretrains what `config` describes in a new run folder, and returns the folder of the encoder.

    Raises:
        MetarecError: as `start` and `metarec_jax.train.pretraining.loop.fit` do; or a signal stopped it.
    """
    run, pretraining = start(config, Path(folder), reporter=reporter)
    return finish(run, pretraining, fit(run, pretraining, reporter=reporter))


def start(config: PretrainConfig, folder: Path, *, reporter: Reporter = QUIET) -> tuple[Run, Pretraining]:
    """Makes a new run folder, ready to pretrain in.

    Raises:
        MetarecError: the folder holds a run or cannot be written, or something is wrong with the data or the encoder.
            Then nothing is left in the folder.
    """
    check_place(folder, command=COMMAND)
    pretraining = assemble(config, reporter=reporter)
    run = run_folder.create(folder, pretraining.config, command=COMMAND)
    write_text(_inputs(run), json.dumps({"sha256": pretraining.fingerprint()}) + "\n")
    return run, pretraining


def resume(folder: Path, *, reporter: Reporter = QUIET) -> tuple[Run, Pretraining]:
    """Opens a run folder to pretrain on in it.

    Raises:
        MetarecError: it holds no such run, or data or encoder are no longer those that the run began with.
    """
    run = run_folder.open_run(folder, command=COMMAND, base=PretrainConfig())
    pretraining = assemble(run.config, reporter=reporter)
    found = {"sha256": pretraining.fingerprint()}
    if not _inputs(run).exists():  # killed before it was written
        write_text(_inputs(run), json.dumps(found) + "\n")
    elif _read(_inputs(run)) != found:
        raise MetarecError(
            f"{_inputs(run)}: the data or the encoder are no longer those that the run began with: bring them back as "
            "they were, or start a new run"
        )
    return run, pretraining


def finish(run: Run, pretraining: Pretraining, pretrained: Pretrained) -> Path:
    """Writes the encoder into the run folder, complete or not at all, with a mark of what it has seen.

    Returns:
        Its folder, an ordinary checkpoint, for `metarec train --encoder.path` and for transformers. One that is there
        already is kept.
    """
    folder = run.folder / "encoder"
    if folder.exists():
        return folder
    part = run.folder / ".encoder.part"
    shutil.rmtree(part, ignore_errors=True)
    before = pretraining.encoder
    head = before.head if pretrained.weights.head is None else pretrained.weights.head
    encoders.save(dataclasses.replace(before, params=merge_lora(pretrained.weights.encoder), head=head), part)
    mark(part, pretraining.data, pretraining.seen, pretraining.config, before.source)
    with explained(folder):
        part.rename(folder)
    return folder


def _inputs(run: Run) -> Path:
    return run.folder / "inputs.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
