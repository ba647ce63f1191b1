"""Time the learning of item factors with one OpenBLAS thread per call, and with as many as there are cores."""

from __future__ import annotations

import importlib

from threadpoolctl import ThreadpoolController

from benchmarks import harness
from metarec_jax.config.run import Config
from metarec_jax.core.environment import environment
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.factors.hyperparameters import Hyperparameters
from metarec_jax.factors.item_factors import believe, main_features, rated_most
from metarec_jax.train.build import build

OURS, OWN = "one thread a call", "OpenBLAS's own threads"


def compare(config: Config, rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Measure training users per second of learning item factors (one fold).

    Args:
        config: config of the run.
        rounds: rounds of the measurement.
        reporter: shows progress.
    """
    experiment = build(config, reporter=QUIET)
    data, embeddings, rows = experiment.data, experiment.catalogue.embeddings, experiment.division.train
    trained = data.user[rows], data.item[rows], data.rating[rows]
    count = experiment.catalogue.statistics.count
    chosen = Hyperparameters(config.factors.rank)
    basis = rated_most(chosen, len(data.items), trained[1])
    towards = main_features(chosen, data.items, embeddings, count)
    importlib.import_module("scipy.linalg")  # whose OpenBLAS JAX calls: it has to be there for its threads to be set
    libraries = ThreadpoolController().select(user_api="blas")
    cores = environment()["cpu"]["usable"]

    def learn(threads: int) -> None:
        with libraries.limit(limits=threads):
            believe(chosen, data.items, embeddings, *trained, 1.0, basis, towards)

    contenders = [harness.Contender(OURS, lambda: learn(1)), harness.Contender(OWN, lambda: learn(cores))]
    seconds = harness.take_turns(contenders, rounds=rounds, warmup=1, reporter=reporter, label="beliefs")
    users = len(experiment.division.train_users)
    facts = {"rows": len(trained[0]), "items": len(basis), "threads": cores}
    case = f"beliefs about {len(basis):,} items of {users:,} users"
    return harness.compare(case, seconds, ours=OURS, work=users, metric="users/s", facts=facts)
