"""Start-up times of processes: imports, recommendations from a finished run, training with and without a cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import harness
from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.train.start import meta_train

IMPORT, ANSWER = 1.2, 2.0
"""Target: greatest duration of importing the package, and of an answer, over that of `import jax, flax, optax`."""
BASE = "import jax, flax, optax"
TRAIN = ["--preset", "synthetic", "--train.epochs", "1", "--learner.user-side", "none", "--train.users-per-step", "160"]


def compare(
    config: Config, rounds: int, reporter: Reporter = QUIET, training: bool = True, warmup: int = 1
) -> list[harness.Row]:
    """Seconds from the start of a process to its end.

    Args:
        config: config of the run; it is trained for one epoch.
        rounds: turns of each contender.
        reporter: shows progress.
        training: whether to also train with a cold and a warm cache.
        warmup: turns before the first counted one.
    """
    rows: list[harness.Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        meta_train(config, folder / "run")
        ask = ["recommend", str(folder / "run"), "--rate", "id:1=5", "--rate", "id:2=2", "-k", "10"]
        cache, runs = str(folder / "cache"), iter(range(10**6))

        def python(*arguments: str, cache: str = cache) -> None:
            environment = {**os.environ, "METAREC_CACHE": cache}
            command = [sys.executable, *arguments]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def train(cache: str) -> None:
            python("-m", "metarec_jax", "train", *TRAIN, "--out", str(folder / f"run-{next(runs)}"), cache=cache)

        contenders = [
            harness.Contender(BASE, lambda: python("-c", BASE)),
            harness.Contender("import metarec_jax", lambda: python("-c", "import metarec_jax")),
            harness.Contender("its Recommender", lambda: python("-c", "from metarec_jax import Recommender")),
            harness.Contender("metarec recommend", lambda: python("-m", "metarec_jax", *ask)),
        ]
        seconds = harness.take_turns(contenders, rounds=rounds, warmup=warmup, reporter=reporter, label="start-up")
        bars = {"import metarec_jax": 1 / IMPORT, "metarec recommend": 1 / ANSWER}
        for who in ("import metarec_jax", "its Recommender", "metarec recommend"):
            rows += harness.compare(
                f"start-up, {who}",
                {"ours": seconds[who], BASE: seconds[BASE]},
                ours="ours",
                work=1,
                metric="starts/s",
                bars={BASE: bars[who]} if who in bars else {},
                facts={"seconds": sorted(seconds[who].tolist())},
            )
        if not training:
            return rows
        train(cache)
        cold = [harness.Contender("cold", lambda: train(str(folder / f"cold-{next(runs)}")))]
        warm = [harness.Contender("warm", lambda: train(cache))]
        both = harness.take_turns(
            [*cold, *warm], rounds=max(rounds // 3, 1), warmup=0, reporter=reporter, label="cache"
        )
        facts = {"seconds": {name: sorted(taken.tolist()) for name, taken in both.items()}}
        case = "start-up, training for an epoch"
        rows += harness.compare(case, both, ours="warm", work=1, metric="starts/s", facts=facts)
    return rows
