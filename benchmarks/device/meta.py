"""Parts "inner loop", "outer step" and "joint step, N tokens": meta-training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import joint, ours, outer_step
from benchmarks.cases import SMOKE, STANDARD, InnerLoopCase
from benchmarks.device.encoder import bert_base, computed_in, token_ids
from benchmarks.device.measure import Asked, Row, Work, measured
from benchmarks.device.torch_device import find
from benchmarks.rivals import Task
from benchmarks.tasks import task_of
from metarec_jax.encoder import Texts, choose_execution

USERS, JOINT_USERS = 1024, 64
TORCH_AT_ONCE = 256
"""Users that PyTorch computes at a time on an accelerator: its matrices of all users would take tens of GB."""
KERNEL = 8
"""Users of a block of the kernel."""
FORMS: Mapping[str, tuple[Any, Any]] = {
    "Gram, float32": ("factored", np.float32),
    "Gram, bfloat16": ("factored", jnp.bfloat16),
    "dense, float32": ("dense", np.float32),
    "dense, bfloat16": ("dense", jnp.bfloat16),
}
"""Form of the inner loop, and data type of the products with the table."""
PRECISE = "Gram, float32, highest precision"
"""The reference of `relative_error`."""


def case_of(asked: Asked) -> InnerLoopCase:
    """The standard case with 1,024 users."""
    return SMOKE if asked.smoke else dataclasses.replace(STANDARD, name="standard", users=USERS)


def _shown(facts: Mapping[str, float], compute: Any, **more: Any) -> dict[str, Any]:
    """Facts of a program with the names that `Work` reads."""
    work = {"gflop": facts["gflop_of_products"], "gbytes": facts["gbytes_moved"]}
    return {**facts, **work, "compute": np.dtype(compute).name, **more}


def inner_loop(asked: Asked) -> Iterator[Row]:
    """The meta-gradient of 1,024 users in Gram space, in the kernel, with dense matrices, and by torch.func.

    Args:
        asked: size and time.

    Yields:
        A row for each program; `relative_error` is that of its gradient.
    """
    case = case_of(asked)
    task, at_once = task_of(case), _at_once(case)
    known: list[Any] = []

    def program(form: Any, compute: Any, precision: Any = None, kernel: int = 0) -> Work:
        with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
            made = ours.program(task, form, at_once=at_once[form], compute=compute, kernel=kernel)
        if precision:
            known.append(made.result)
        error = ours.relative_error(made.result, known[0]) if known else float("nan")
        return Work(made.start, task.users, "users", _shown(made.facts, compute, relative_error=error))

    def rival() -> Work:
        where = find()
        run = _of_torch(task, where.name)
        error = ours.relative_error(run(), known[0]) if known else float("nan")
        facts = {"relative_error": error, "compute": "float32", "users at once": _torch_at_once(where.name)}
        return Work(run, task.users, "users", facts, where.wait)

    programs = {
        PRECISE: functools.partial(program, "factored", np.float32, "highest"),
        "Gram, float32": functools.partial(program, *FORMS["Gram, float32"]),
        "Gram, bfloat16": functools.partial(program, *FORMS["Gram, bfloat16"]),
        "kernel, bfloat16": functools.partial(program, *FORMS["Gram, bfloat16"], kernel=min(KERNEL, task.users)),
        "PyTorch, torch.func, float32": rival,
        "dense, bfloat16": functools.partial(program, *FORMS["dense, bfloat16"]),
        "dense, float32": functools.partial(program, *FORMS["dense, float32"]),
    }
    if jax.default_backend() == "cpu" and not asked.smoke:
        del programs["kernel, bfloat16"]  # on a CPU it runs operation by operation
    yield from measured(f"meta-gradient, {case.users:,} users", programs, asked, most=2.0)


def _at_once(case: InnerLoopCase) -> dict[str, int]:
    """Users of a micro-batch of each form: all on an accelerator."""
    if jax.default_backend() == "cpu":
        return {"factored": case.at_once, "dense": case.dense_at_once}
    return {"factored": 0, "dense": 0}


def _torch_at_once(device: str) -> int:
    from benchmarks.torch_reference import vmapped

    return vmapped.USERS_AT_ONCE if device == "cpu" else TORCH_AT_ONCE


def _of_torch(task: Task, device: str) -> Any:
    """The meta-gradient by torch.func, with its tensors on a device."""
    import torch

    from benchmarks.torch_reference import vmapped

    with torch.device(device):
        return vmapped.prepare(task, users_at_once=_torch_at_once(device))


def outer(asked: Asked) -> Iterator[Row]:
    """A full outer step of 1,024 users with a frozen encoder: meta-gradient, clipping and AdamW.

    Args:
        asked: size and time.

    Yields:
        A row for each program.
    """
    case = case_of(asked)
    task, at_once = task_of(case), _at_once(case)

    def program(name: str) -> Work:
        form, compute = FORMS[name]
        step = outer_step.our_step(task, form, at_once[form], compute=compute)
        return Work(step.run, task.users, "users", _shown(step.facts, compute))

    def rival() -> Work:
        import torch

        from benchmarks.torch_reference import outer_step as theirs
        from benchmarks.torch_reference import vmapped

        where = find()
        prepare = functools.partial(vmapped.prepare, users_at_once=_torch_at_once(where.name))
        options = {"rate": outer_step.RATE, "decay": outer_step.DECAY, "clip": outer_step.CLIP}
        with torch.device(where.name):
            step = theirs.step(prepare, task, **options)
        return Work(step.run, task.users, "users", {"compute": "float32"}, where.wait)

    programs: dict[str, Any] = {name: functools.partial(program, name) for name in FORMS if name.startswith("Gram")}
    programs["PyTorch, torch.func, float32"] = rival
    yield from measured(f"outer step, encoder frozen, {case.users:,} users", programs, asked, most=2.0)


def joint_step(length: int, asked: Asked) -> Iterator[Row]:
    """A full outer step that also trains BERT-base with random weights, on 64 users without shared texts.

    Args:
        length: tokens of a text.
        asked: size and time.

    Yields:
        A row.
    """
    encoder = bert_base(smoke=asked.smoke)
    small: dict[str, Any] = {} if not asked.smoke else {"support": 3, "query": 2, "hidden": 8, "steps": 2}
    users = 2 if asked.smoke else JOINT_USERS
    case = dataclasses.replace(STANDARD, users=users, features=encoder.config.hidden_size, **small)
    run = choose_execution(jax.default_backend())
    dtype = computed_in()

    def program() -> Work:
        task = task_of(case)
        ids = list(token_ids(len(task.table), length, encoder.config.vocab_size))
        sizes = {"tokens_per_call": run.tokens_per_call, "shortest_row": run.shortest_row}
        texts = Texts.of(ids, width=encoder.config.hidden_size, **sizes)
        step = joint.our_step(task, encoder, texts, 0, adam=True, dtype=dtype, run=run)
        return Work(step.run, users, "users", _shown(step.facts, dtype, texts=len(ids), length=length))

    name = f"outer step, encoder trained, {users} users, texts of {length} tokens"
    yield from measured(name, {f"Gram, {np.dtype(dtype).name}": program}, asked, most=5.0)
