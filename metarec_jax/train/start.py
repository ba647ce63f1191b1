"""From a config and a folder to a trained run: what is looked at first, and what is written in which order.

A run folder appears only when everything that can be wrong with the input has been looked at, and it appears with all
that a resumed training or a recommender needs.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np

from metarec_jax.config.run import Config
from metarec_jax.core.atomic_files import explained
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import parameters, run_folder, warm_start
from metarec_jax.train.build import Assembly, assemble
from metarec_jax.train.catalogue import Catalogue
from metarec_jax.train.loop import Fitted, first_state, fit
from metarec_jax.train.run_folder import Run


def meta_train(config: Config, folder: str | Path, *, reporter: Reporter = QUIET) -> Fitted:
    """Trains what `config` describes into a new run folder: `start`, then `metarec_jax.train.loop.fit`.

    Raises:
        MetarecError: as these two do.
    """
    run, assembly = start(config, Path(folder), reporter=reporter)
    return fit(run, assembly, reporter=reporter)


def start(config: Config, folder: Path, *, reporter: Reporter = QUIET) -> tuple[Run, Assembly]:
    """Makes a new run folder, ready to train in.

    Raises:
        MetarecError: the folder holds a run or cannot be written, or something is wrong with the data or the encoder.
            Then nothing is left in the folder.
    """
    check_place(folder)  # before minutes of reading and encoding
    earlier = warm_start.learned(config) if config.train.begin else None
    assembly = assemble(config, reporter=reporter)
    if earlier is not None:
        warm_start.check(config, earlier, jax.eval_shape(lambda: first_state(assembly, 1).trainable))
        reporter.note(
            f"training begins with what {config.train.begin} learned; it may have learned from users that validate "
            "here, so validation losses are no proof of anything"
        )
    existed = folder.exists()
    try:
        run = run_folder.create(folder, assembly.config)
        catalogues.save(assembly.catalogue, run)
        if earlier is not None:
            parameters.save(earlier, run.beginning)
    except BaseException:
        remove_unborn(folder, keep_folder=existed)
        raise
    return run, assembly


def resume(folder: Path, *, reporter: Reporter = QUIET) -> tuple[Run, Assembly]:
    """Opens a run folder to train on in it.

    Raises:
        MetarecError: it holds no run, or the data is no longer what the run began with.
    """
    run = run_folder.open_run(folder)
    assembly = assemble(run.config, reporter=reporter)
    if run.catalogue.exists() and run.embeddings.exists():
        _refuse_other_data(run, catalogues.load(run), assembly.catalogue)
    else:  # killed before these were written
        catalogues.save(assembly.catalogue, run)
    return run, assembly


def check_place(folder: Path, *, command: str = "train") -> None:
    """Sees that a run of `metarec` `command` can be made in `folder`, without making anything.

    Raises:
        MetarecError: there is a run already, or the folder cannot be written.
    """
    if (folder / "config.json").exists():
        raise MetarecError(
            f"{folder} already holds a run: continue it with `metarec {command} --resume {folder}`, "
            "or give another folder with --out"
        )
    present = folder
    while not present.exists() and present != present.parent:
        present = present.parent
    with explained(folder):
        try:
            with tempfile.TemporaryFile(dir=present):
                pass
        except OSError as error:  # which names the temporary file
            raise OSError(error.errno, error.strerror, str(folder)) from error


def remove_unborn(folder: Path, *, keep_folder: bool) -> None:
    """Removes what `start` wrote to a folder before it failed."""
    with contextlib.suppress(OSError):
        if not keep_folder:
            shutil.rmtree(folder)
            return
        run = Run(folder, Config())
        for path in (folder / "config.json", run.catalogue, run.embeddings, run.beliefs, run.beginning):
            path.unlink(missing_ok=True)


def _refuse_other_data(run: Run, saved: Catalogue, found: Catalogue) -> None:
    """A run resumed on other data would be neither the one run nor the other."""
    same = (
        saved.items.ids == found.items.ids
        and np.array_equal(saved.statistics.total, found.statistics.total)
        and np.array_equal(saved.statistics.count, found.statistics.count)
        and saved.embeddings.shape == found.embeddings.shape
    )
    if not same:
        raise MetarecError(
            f"{run.catalogue}: the items, their training ratings or the encoder are no longer those that the run "
            "began with: bring the data back as it was, or start a new run"
        )
