"""Adapt and rank: from ratings to the ten best items, for one user and a thousand, by the package's own interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, roofline
from benchmarks.phases import Watched, first, together
from benchmarks.rivals import Layers, Task
from metarec_jax.config.data import EpisodeConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config
from metarec_jax.config.updater import UpdaterConfig
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Items
from metarec_jax.recommender.recommender import Limits, Recommender
from metarec_jax.train.catalogue import Catalogue, Scale, Statistics
from metarec_jax.train.model import init_trainable, make_model

BARS = {"(b) loop": 10.0, "(c) torch.func": 10.0}
OF_BANDWIDTH = 0.5
TOLERANCE = 1e-3
"""Largest error of scores, in rating levels."""
FEW = 50
"""Number of users with which a loop over users is timed; the time of all is extrapolated."""


@dataclasses.dataclass(frozen=True)
class RankingCase:
    """`users` with `support` ratings each, and a catalogue of `items`."""

    name: str
    users: int
    items: int
    features: int
    hidden: int = 128
    support: int = 20
    steps: int = 5
    k: int = 10


SMALL = RankingCase("1,000 users x 1,682 items", 1000, 1682, 768)
CATALOGUES = (
    RankingCase("1 user x 1,682 items", 1, 1682, 384, hidden=64, support=16),
    RankingCase("1 user x 100,000 items", 1, 100_000, 384, hidden=64, support=16),
    RankingCase("1,000 users x 100,000 items", 1000, 100_000, 384, hidden=64, support=16),
    RankingCase("1 user x 1,000,000 items", 1, 1_000_000, 384, hidden=64, support=16),
)
SMOKE = RankingCase("smoke", 3, 40, 8, hidden=4, support=4, steps=2, k=5)


def recommender_of(case: RankingCase) -> tuple[Recommender, Task, list[dict[int, float]]]:
    """The package's recommender, the same task for PyTorch, and the users' ratings."""
    rng = np.random.default_rng(0)
    learner = LearnerConfig(hidden=case.hidden, user_side="none", head="classes", prior=False)
    updater = UpdaterConfig(steps=case.steps, rate=0.03)
    episodes = EpisodeConfig(buckets=(case.support,), min_ratings=case.support + 10)
    config = Config(learner=learner, updater=updater, episodes=episodes)
    scale = Scale("rating", (1.0, 2.0, 3.0, 4.0, 5.0), 1.0, 5.0)
    names = tuple(map(str, range(case.items)))
    items = Items(ids=names, titles=names, texts=("",) * case.items)
    count = np.full(case.items, 5.0, np.float32)
    table = rng.standard_normal((case.items, case.features), np.float32)
    table *= np.float32(case.features**-0.5)
    catalogue = Catalogue(items, Statistics(3 * count, count), table, scale)
    model = make_model(config, scale)
    few = dataclasses.replace(catalogue, embeddings=table[:100], statistics=Statistics(3 * count[:100], count[:100]))
    nobody = np.zeros((1, 0), np.float32)
    trainable = jax.device_get(init_trainable(config, model, few, nobody, jax.random.key(0)))
    theta = trainable.theta
    theta["input"]["item"] = {"shift": np.zeros(case.features, np.float32), "scale": np.float32(1)}
    theta["output"]["kernel"] = rng.standard_normal(theta["output"]["kernel"].shape).astype(np.float32)
    ids = np.stack([rng.permutation(case.items)[: case.support] for _ in range(case.users)]).astype(np.int32)
    labels = rng.integers(0, 5, ids.shape).astype(np.int32)
    layers: Layers = {
        "hidden": {"kernel": theta["hidden"]["item"]["kernel"], "bias": theta["hidden"]["bias"]},
        "output": dict(theta["output"]),
    }
    learned = trainable.phi["log_rate"]
    rates: Layers = {
        "hidden": {"kernel": learned["hidden"]["item"]["kernel"], "bias": learned["hidden"]["bias"]},
        "output": dict(learned["output"]),
    }
    mean, bias = jnp.full(1, theta["prior"]["mean"]), jnp.zeros(())
    offset = np.asarray(model.head.prior(theta["prior"]["head"], mean, bias))[0]
    # The package puts the latest rating first; the order in a mean affects only rounding.
    task = Task(table, ids, labels, ids[:, :0], labels[:, :0], layers, rates, offset)
    histories = [dict(zip(i.tolist(), (1.0 + own).tolist())) for i, own in zip(ids, labels)]
    # Every list ranks all items, held on the device; `benchmarks.retrieval` measures candidates.
    limits = Limits(whole_items=case.items, device_floats=case.items * case.features)
    return Recommender(config, catalogue, trainable, limits=limits), task, histories


def compare(case: RankingCase, rounds: int, reporter: Reporter = QUIET) -> list[harness.Row]:
    """Users per second from ratings to lists, against PyTorch; for one user, also against the memory's bandwidth."""
    from benchmarks.torch_reference import ranking as theirs

    recommender, task, histories = recommender_of(case)

    def run() -> Any:
        return recommender.recommend_many(recommender.adapt_many(histories), case.k)

    some = dataclasses.replace(task, **{f: getattr(task, f)[:FEW] for f in _OF_USERS})
    rivals: dict[str, Callable[[], Any]] = {"(b) loop": theirs.loop(some, case.k)}
    at_once = max(1, min(theirs.USERS_AT_ONCE, 64_000 // case.items))
    batched = some if case.users * case.items > 20_000_000 else task
    rivals["(c) torch.func"] = theirs.vmapped(batched, case.k, at_once)
    own = together(found for program in watched(recommender, run) for found in program.programs.values())
    own["first_s"] = first(run)
    lists = run()
    for name, rival in rivals.items():
        _agree(f"{case.name}, {name}", lists, *rival())
    machine = roofline.Machine(small=case == SMOKE)
    contenders = [harness.Contender("ours", run), *(harness.Contender(n, f) for n, f in rivals.items())]
    contenders += machine.contenders()
    seconds = harness.take_turns(contenders, rounds=rounds, warmup=1, reporter=reporter, label=case.name)
    best = machine.best(seconds)
    timed = {"(b) loop": some.users, "(c) torch.func": batched.users}
    for name, users in timed.items():
        seconds[name] = seconds[name] * case.users / users
    facts: dict[str, Any] = {"shape": dataclasses.asdict(case), "users that rivals were timed with": timed}
    facts["phases"] = {"ours": own}
    facts["roofline"] = roofline.reached(best, facts["phases"], seconds)
    bars = BARS if case in (SMALL, SMOKE) else {}
    label = f"adapt and rank, {case.name}"
    rows = harness.compare(label, seconds, ours="ours", work=case.users, metric="users/s", bars=bars, facts=facts)
    if case.users == 1:
        # Bytes to read: every item's embedding, its product with the first kernel, and two counts.
        moved = case.items * (case.features + case.hidden + 2) * 4 / 1e9
        achieved = moved / seconds["ours"]
        low, median, high = np.quantile(achieved / best.bandwidth, [0.05, 0.5, 0.95])
        rows.append(
            harness.Row(
                label,
                "bandwidth",
                "GB/s of items",
                float(np.median(achieved)),
                float(np.median(best.bandwidth)),
                {"median": float(median), "low": float(low), "high": float(high)},
                OF_BANDWIDTH if case.items >= 1_000_000 else None,
                facts | {"gigabytes": moved},
            )
        )
    return rows


def watched(recommender: Recommender, run: Callable[[], Any]) -> list[Watched]:
    """The programs that the recommender calls in `run`, with the calls of each."""
    programs = recommender.executor.programs
    unwatched = dict(programs)
    found = {name: Watched(programs[name].jitted) for name in ("prepare", "adapt", "score_all")}
    programs.update(found)
    run()
    for program in found.values():  # do not count results that are cached between calls
        program.start_over()
    run()
    programs.update(unwatched)
    return list(found.values())


_OF_USERS = ("support_ids", "support_labels", "query_ids", "query_labels")


def _agree(who: str, lists: list[Any], scores: np.ndarray, rows: np.ndarray) -> None:
    """Refuse different lists; two items whose scores differ by rounding may be swapped."""
    for found, wanted, _ in zip(lists, scores, rows):
        error = float(np.abs(np.array([r.score for r in found]) - wanted).max())
        if not error < TOLERANCE:
            raise SystemExit(f"{who}: the lists disagree: scores are off by {error:.1e}")
