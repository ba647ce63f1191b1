"""What the rest of the package must know of a way of training."""

from __future__ import annotations

from typing import NamedTuple


class Training(NamedTuple):
    """Traits of a way of training; the defaults are those of the ordinary one, which rules nothing out.

    The options of another way are a section of the config, a dataclass with a property ``training`` of this type and a
    method ``check(config)`` that refuses options which it rules out (see `metarec_jax.core.kinds.TRAININGS`).

    Attributes:
        package: package with the modules ``frozen_program`` and ``joint_program``, whose ``build`` makes the training
            program with a frozen and with a trained encoder.
        only_steps: whether outer steps are the only use of the data: no item statistics, factors or user texts of
            training users, no choice of an epoch by validation users, and no ratings of added items.
        remedy: clause for messages: how an input that `only_steps` rules out may be used all the same.
        no_warm_start: why training cannot start from an earlier run, and a remedy; "" if it can.
        no_early_compilation: why the outer step cannot be compiled ahead of time, and a remedy; "" if it can.
        guarantee: module with a function ``guarantee(run)`` that returns what a run in a folder guarantees to its
            training users, a mapping of JSON values with a "statement" and "details", which are texts by name, or None
            if nothing is known yet; "" for a training that guarantees nothing.
    """

    package: str = "metarec_jax.train"
    only_steps: bool = False
    remedy: str = ""
    no_warm_start: str = ""
    no_early_compilation: str = ""
    guarantee: str = ""
