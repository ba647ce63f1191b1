"""Training that begins with what an earlier run learned, in place of random numbers: on a log of use, say.

What the new run is told of the earlier one is copied into its folder when it starts, so that it can be resumed
whatever becomes of that one. Whom the earlier run learned from is not known any more, so validation losses of a run
that began warm flatter it, and `metarec evaluate` refuses it.
"""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.core.scale import Scale
from metarec_jax.meta.user import Trainable
from metarec_jax.train import catalogue as catalogues
from metarec_jax.train import run_folder
from metarec_jax.train.run_folder import Run

ANEW = "theta/prior/taste/"
"""What is about single factors of items, which the new run learns anew: they need not mean what they meant."""


def refuse(config: Config, what: str) -> None:
    """Refuses to judge what began warm.

    Raises:
        MetarecError: training of `config` begins with what an earlier run learned.
    """
    if config.train.begin:
        raise MetarecError(
            f"train.begin is {config.train.begin!r}: that run may have learned from the very users that would be asked "
            f"here, so this one cannot be {what}; take one that begins anew, or compare both in use "
            "(metarec serve RUN --against OTHER)"
        )


def learned(config: Config) -> Trainable:
    """What the run that training is to begin from has learned, as host arrays.

    Raises:
        MetarecError: there is no such run, it has not ended an epoch, or it is refused by what the new run promises.
    """
    if config.privacy.epsilon:
        raise MetarecError(
            f"train.begin is {config.train.begin!r}, but what an earlier run knows of its users is not private: "
            "leave it out, or train without --privacy.epsilon"
        )
    from metarec_jax.train.parameters import load_trainable

    earlier = run_folder.open_run(Path(config.train.begin))
    start = None
    if earlier.config.encoder.train != "no":
        from metarec_jax.encoder import load

        start = load(earlier.config.encoder.path).params
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


def check(config: Config, found: Trainable, like: Trainable) -> None:
    """Sees that a run of `config` can begin with `found`.

    Args:
        config: of the new run.
        found: from `learned`.
        like: arrays or shapes of what the new run trains.

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
    """`trainable` with what the run's folder holds of an earlier one.

    Raises:
        MetarecError: the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        kept = load_file(run.beginning)
    except (SafetensorError, OSError) as error:
        raise MetarecError(f"{run.beginning} cannot be read ({error}): start the training again") from error
    names, leaves = path_names(trainable), jax.tree.leaves(trainable)
    missing = [name for name in names if not name.startswith(ANEW) and name not in kept]
    if missing:
        raise MetarecError(f"{run.beginning} lacks {missing[0]}: start the training again")
    taken = [leaf if n.startswith(ANEW) else jnp.asarray(kept[n], leaf.dtype) for n, leaf in zip(names, leaves)]
    return jax.tree.unflatten(jax.tree.structure(trainable), taken)
