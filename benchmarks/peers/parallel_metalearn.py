"""`parallel-metalearn` 0.5.6: its `MAML.step` (`vmap`, in chunks) with its `InnerSGD`, per layer and per step.

`step` ends with a step of the outer optimizer, here with rate 0, so that every call computes the same. It learns rates,
not their logarithms: d/d log(rate) = rate * d/d rate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from metalearn.algorithms import MAML  # pyrefly: ignore[missing-import]
from metalearn.inner_optimizers import InnerSGD  # pyrefly: ignore[missing-import]
from metalearn.loss import CategoricalAccuracy, CrossEntropy  # pyrefly: ignore[missing-import]
from metalearn.model_wrappers import MAML_Model  # pyrefly: ignore[missing-import]

from benchmarks.rivals import MetaGradient, Task
from benchmarks.torch_reference.network import Hidden, Output, Rows, gradients, layers, tensors

LEARNED_RATES = True
USERS_AT_ONCE = 16
"""The fastest of 4, 8, 16, 32, 64 and all users, on two cores (8 and 32 are equally fast; the default is 80)."""

PLACES = {"hidden": "backbone", "output": "head"}


def prepare(task: Task) -> Callable[[], MetaGradient]:
    """See `Rival.prepare`."""
    theta, log_rate, rows = tensors(task.theta), tensors(task.log_rate), Rows.of(task)
    model = MAML_Model(
        backbone=Hidden(theta["hidden.kernel"], theta["hidden.bias"]),
        head=Output(theta["output.kernel"], theta["output.bias"], torch.tensor(task.offset)),
    )
    inner = InnerSGD(model.get_fast_weights(), max_inner_steps=task.steps, per_layer=True, per_step=True)
    parameters, rates = {}, {}
    for name in theta:
        layer, array = name.split(".")
        parameters[name] = model.get_parameter(f"{PLACES[layer]}.{array}")
        rates[name] = inner.lrs[f"lr_{PLACES[layer]}_{array}"]
        rates[name].data = log_rate[name].exp()
    maml = MAML(
        model=model,
        optimizer=torch.optim.SGD(parameters.values(), lr=0.0),
        inner_optimizer=inner,
        support_loss_fn=CrossEntropy(CategoricalAccuracy()),  # the default is the class, which cannot be called
        inner_steps=task.steps,
        chunk_size=USERS_AT_ONCE,
        device=torch.device("cpu"),
    )

    def run() -> MetaGradient:
        support, support_labels, query, query_labels = rows.gather()
        tasks = iter([(support, {"labels": support_labels}, query, {"labels": query_labels})])
        loss, _ = maml.step(tasks)
        by_log_rate = {name: gradient * rates[name] for name, gradient in gradients(rates).items()}
        return MetaGradient(loss, layers(gradients(parameters)), layers(by_log_rate))

    return run
