"""The ledger of a private training: the privacy loss in the run folder, and the secret seed of the noise."""

from __future__ import annotations

import json
from typing import Any

from metarec_jax.core import processes
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import Reporter
from metarec_jax.privacy import accounting
from metarec_jax.train.checkpoints import Progress
from metarec_jax.train.experiment import Experiment
from metarec_jax.train.program import Ledger
from metarec_jax.train.run_folder import Run


class PrivacyLedger(Ledger):
    """Records the epsilon that has been spent at each checkpoint.

    Args:
        run: the run folder.
        experiment: its config states the privacy budget.
        reporter: told how much noise is added.

    Attributes:
        plan: the mechanism of the whole training.
        secret: seed of sampling and noise.

    Raises:
        MetarecError: the epsilon cannot be reached.
    """

    def __init__(self, run: Run, experiment: Experiment, reporter: Reporter):
        self._run = run
        exists = processes.from_first("whether there is a secret", lambda: str(accounting.secret_file(run).exists()))
        self._had_secret = exists == str(True)
        source = experiment.train.source
        self.plan = accounting.make_plan(experiment.config, len(source.histories.users), len(source))
        reporter.note(
            f"private: epsilon {self.plan.epsilon:g} at delta {self.plan.delta:.2g} takes noise of "
            f"{self.plan.noise:.3g} times the clip {self.plan.clip:g} in each of {self.plan.steps} outer steps"
        )
        # Of several processes the first draws it for all, so that sample and noise are drawn once.
        self.secret = tuple(json.loads(processes.from_first("secret", lambda: json.dumps(accounting.secret(run)))))

    def resume(self, progress: Progress) -> None:
        """Refuse to continue without the secret seed of the steps so far."""
        if not self._had_secret and not progress.finished:
            secret = accounting.secret_file(self._run)
            raise MetarecError(
                f"{secret} is gone, which this private training draws its noise from: what is left of it "
                "cannot be accounted for; train a new run"
            )

    def record(self, step: int) -> dict[str, Any]:
        """Write the privacy loss of `step` steps to the run folder; returns it for the line of metrics."""
        return {"epsilon": accounting.write(self._run, self.plan, step)["epsilon_spent"]}

    def finish(self) -> None:
        """Remove the secret."""
        accounting.forget(self._run)
