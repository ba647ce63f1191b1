"""Training that starts from the parameters of an earlier run, for example on a log of a service.

The parameters are copied into the folder of the new run when it starts, so that it can be resumed without the earlier
run. The training users of the earlier run are not known, so validation losses of a warm-started run are biased, and
`metarec evaluate` refuses it.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import jax
import jax.numpy as jnp

from metarec_jax.config.run import Config
from metarec_jax.core.checked_files import read_arrays
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.core.scale import Scale
from metarec_jax.meta.model import Trainable
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder
from metarec_jax.train.encoder_options import reading_of
from metarec_jax.train.run_folder import Run

ANEW = ("theta/prior/taste/", "theta/prior/log_noise", "theta/prior/log_gain", "factors")
"""Prefixes of parameters that go with item factors, which the new run fits anew, so that old values do not apply."""


def refuse(config: Config, what: str) -> None:
    """Refuse to evaluate a warm-started run.

    Args:
        config: config of the run.
        what: participle for the message, such as "tuned".

    Raises:
        MetarecError: training of `config` starts from an earlier run.
    """
    if config.train.begin:
        raise MetarecError(
            f"train.begin is {config.train.begin!r}: that run may have been trained on this run's test users, so this "
            f"one cannot be {what}; use a run without train.begin, or compare both in use "
            "(metarec serve RUN --against OTHER)"
        )


def learned(config: Config) -> Trainable:
    """Read the parameters of the earlier run from which training starts, as host arrays.

    Raises:
        MetarecError: there is no such run, it has not finished an epoch, or the way of training of the new run rules it
            out.
    """
    if config.training.no_warm_start:
        raise MetarecError(f"train.begin is {config.train.begin!r}, but {config.training.no_warm_start}")
    from metarec_jax.train.parameters import load_trainable

    earlier = run_folder.open_run(Path(config.train.begin))
    start = None
    if earlier.config.encoder.train != "no":
        from metarec_jax.encoder import load

        start = load(earlier.config.encoder.path, dense=earlier.config.encoder.dense).params
    return load_trainable(earlier, catalogues.load(earlier), start)


def check_scale(config: Config, scale: Scale) -> None:
    """Refuse data on another rating scale than that of the run that training is to begin from.

    Args:
        config: of the new run.
        scale: of its ratings.

    Raises:
        MetarecError: the ends differ, so that one standardised rating means two opinions.
    """
    other = catalogues.load(run_folder.open_run(Path(config.train.begin))).scale
    if (other.kind, other.low, other.high) != (scale.kind, scale.low, scale.high):
        raise MetarecError(
            f"train.begin is {config.train.begin!r}, a run on {other.kind}s of {other.low:.7g} to {other.high:.7g}, "
            f"but this data has {scale.kind}s of {scale.low:.7g} to {scale.high:.7g}: add the data that it was trained "
            "on (metarec feedback RUN --export FILE --merge), or begin anew"
        )


def check_encoder(config: Config, digest: str) -> None:
    """Refuse embeddings of another meaning than those of the run that training is to begin from.

    Args:
        config: of the new run, with every "auto" resolved.
        digest: of the new run's encoder before training.

    Raises:
        MetarecError: pooling, a prompt or the encoder differs; a prompt of users counts only if users have texts.
    """
    earlier = run_folder.open_run(Path(config.train.begin))
    theirs, ours = reading_of(earlier.config.encoder), reading_of(config.encoder)
    for name in dict.fromkeys([*theirs, *ours]):
        value, own = theirs.get(name, "0"), ours.get(name, "0")
        if value != own and not (name == "query_prompt" and config.learner.user_side == "none"):
            raise MetarecError(
                f"train.begin is {config.train.begin!r}, a run with encoder.{name} {value!r:.100}, but this one has "
                f"{own!r:.100}: say --encoder.{name.replace('_', '-')} {shlex.quote(value)}, or begin anew"
            )
    try:
        earlier.check_inputs({"encoder": digest})
    except MetarecError as error:
        raise MetarecError(
            f"train.begin is {config.train.begin!r}, a run with another encoder than {config.encoder.path!r}: say "
            f"--encoder.path {shlex.quote(earlier.config.encoder.path)}, if that is as it was, or begin anew"
        ) from error


def check(config: Config, found: Trainable, like: Trainable) -> None:
    """Check that a run can start from the parameters of an earlier run.

    Args:
        config: config of the new run.
        found: from `learned`.
        like: arrays or shapes of the new run's parameters.

    Raises:
        MetarecError: a parameter is missing in either, or has another shape; the message names it.
    """
    theirs = dict(zip(path_names(found), jax.tree.leaves(found)))
    ours = dict(zip(path_names(like), jax.tree.leaves(like)))
    for name in sorted(theirs.keys() | ours.keys()):
        if name.startswith(ANEW):
            continue
        shapes = [str(list(of[name].shape)) if name in of else "absent" for of in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise MetarecError(
                f"train.begin: {config.train.begin} does not fit: {name} is {shapes[0]} there and {shapes[1]} by the "
                "options of this run: use the learner, updater, factors and encoder that it was trained with"
            )


def begun(trainable: Trainable, run: Run) -> Trainable:
    """Replace parameters by those of an earlier run, from the run's folder.

    Args:
        trainable: initial parameters.
        run: the run folder.

    Returns:
        The parameters.

    Raises:
        MetarecError: the file is missing or damaged.
    """
    kept, _ = read_arrays(run.beginning, f"delete {run.folder}, and start the training again")
    names, leaves = path_names(trainable), jax.tree.leaves(trainable)
    missing = [name for name in names if not name.startswith(ANEW) and name not in kept]
    if missing:
        raise MetarecError(f"{run.beginning} lacks {missing[0]}: delete {run.folder}, and start the training again")
    taken = [leaf if n.startswith(ANEW) else jnp.asarray(kept[n], leaf.dtype) for n, leaf in zip(names, leaves)]
    return jax.tree.unflatten(jax.tree.structure(trainable), taken)
