"""The training step, compiled for accelerators that are not present: memory, estimated cost, and scaling.

python -m benchmarks.aot --json OUT [NAME ...]

Each case is written as soon as it is compiled, and a case that OUT holds already is not compiled again. Nothing is
measured: memory, FLOPs and collectives are facts about the program, all other figures are the compiler's estimates.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarec_jax.config.data import EpisodeConfig
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.learner import LearnerConfig
from metarec_jax.config.run import Config, preset
from metarec_jax.config.train import TrainConfig
from metarec_jax.core.progress import QUIET, Reporter


@dataclasses.dataclass(frozen=True)
class Case:
    """An outer step, or with `form` the meta-gradient of the standard inner loop.

    Attributes:
        name: name of the case.
        target: compilation target.
        encoder: an encoder size; "" for the inner loop alone.
        train: trained part of the encoder.
        users: users of a step, on each chip.
        items: items of the catalogue; by default so many that users share none.
        shards: number of devices that hold one copy of the encoder.
        remat, scan: rematerialization of the encoder's layers, and whether they are a loop.
        compute: precision of products.
        attention: attention of the encoder; "" computes it, and the layers, as a run on a TPU does, but for
            `tokens_per_call`.
        tokens_per_call: tokens that a chip encodes at a time.
        shortest, longest: tokens of texts, which have all these lengths equally often.
        form: form of the inner loop, "dense" or "factored"; "layer" for one layer of the encoder, with derivative; or
            "texts" for the encoding of `users` texts of `TEXT` tokens on each chip by a frozen encoder.
        level: level of optimisation: "O1" compiles three times as fast as the default, and fuses less. Cycles are
            comparable only within one level.
    """

    name: str
    target: str
    encoder: str = ""
    train: str = "all"
    users: int = 16
    items: int = 1_000_000
    shards: int = 1
    remat: bool = True
    scan: bool = True
    compute: str = "bfloat16"
    attention: str = "xla"
    tokens_per_call: int = 16384
    form: str = ""
    level: str = "O1"
    shortest: int = 32
    longest: int = 32


def inner_loop(target: str, form: str, compute: str) -> Case:
    """1,024 users, support 20, query 10, 768 -> 128 -> 5, five second-order steps."""
    return Case(f"inner loop, {form}, {compute}, {target}", target, form=form, compute=compute, users=1024, level="")


def joint(target: str, encoder: str, train: str = "all", **changes: Any) -> Case:
    """A joint step of users with 20 + 10 interactions and, if nothing else is said, texts of 32 tokens."""
    case = Case("", target, encoder, train, **changes)
    extra = "".join(f", {name} {value}" for name, value in changes.items() if (name, value) != ("attention", ""))
    return dataclasses.replace(case, name=f"{encoder} {train}, {target}{extra}")


TEXT = 128
"""Tokens of a text that a frozen encoder encodes."""


def encoding(target: str, encoder: str, shards: int = 1, scan: bool = False) -> Case:
    """1,024 texts on each chip, with parameters stored in bfloat16 and split over `shards` chips."""
    name = f"{encoder}, {target}, {shards} to a copy{', a loop over layers' if scan else ''}"
    return Case(
        name, target, encoder, "no", 1024, shards=shards, remat=False, scan=scan, attention="tiled", form="texts"
    )


INNER = tuple(
    inner_loop(target, form, compute)
    for target in ("v5e:1x1", "v6e:1x1", "v5p:1x1x1")
    for compute in ("bfloat16", "float32")
    for form in ("factored", "dense")
    if target == "v5e:1x1" or compute == "bfloat16"
)
PODS = ("v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16")
SCALING = (
    joint("v5e:1x1", "bert-base", users=64, remat=False, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", level=""),
    *(joint(target, "bert-base", users=64, remat=False) for target in PODS),
)
LARGE = (
    joint("v5e:1x1", "bert-large", "no", users=1024),
    joint("v5e:1x1", "bert-large", "lora"),
    joint("v5e:1x1", "bert-large", "all"),
    joint("v5e:16x16", "bert-large", "no", users=1024),
    joint("v5e:16x16", "bert-large", "lora"),
    joint("v5e:16x16", "bert-large", "all"),
    joint("v5e:16x16", "bert-large", "all", shards=4),
    joint("v5e:1x1", "bert-1b", "no", users=1024),
    joint("v5e:1x1", "bert-1b", "lora"),
    joint("v5e:1x1", "bert-1b", "all"),
    joint("v5e:16x16", "bert-1b", "no", users=1024),
    joint("v5e:16x16", "bert-1b", "lora"),
    joint("v5e:16x16", "bert-1b", "lora", shards=4),
    joint("v5e:16x16", "bert-1b", "all", shards=4),
    joint("v5e:16x16", "bert-1b", "all", shards=16),
    joint("v5e:1x1", "bert-7b", "no", users=1024),
    joint("v5e:16x16", "bert-7b", "no", users=1024),
    joint("v5e:1x1", "bert-7b", "lora"),
    joint("v5e:16x16", "bert-7b", "lora", shards=16),
    joint("v5e:16x16", "bert-7b", "all", shards=16),
    joint("v5e:16x16", "bert-7b", "all", shards=64),
)
LAYER = tuple(
    Case(
        f"a layer of bert-base, {attention} attention",
        "v5e:1x1",
        "bert-base",
        form="layer",
        attention=attention,
        level="",
    )
    for attention in ("xla", "tiled")
)
BATCH = tuple(
    joint("v5e:1x1", encoder, train, users=users)
    for encoder, train in (("bert-base", "all"), ("bert-large", "all"), ("bert-large", "lora"), ("bert-1b", "lora"))
    for users in (64, 256, 1024)
)
"""Memory by the number of users; only embeddings and episodes grow with it, since texts are encoded in chunks."""
BOUGHT = (
    joint("v5e:1x1", "bert-base", users=64, compute="float32", level=""),
    joint("v5e:1x1", "bert-base", users=64, level=""),
    joint("v5e:1x1", "bert-base", users=64, scan=False, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", tokens_per_call=4096, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", tokens_per_call=4096, scan=False, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", tokens_per_call=2048, scan=False, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", tokens_per_call=65536, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", scan=False, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", remat=False, level=""),
    joint("v5e:1x1", "bert-base", users=64, attention="tiled", remat=False, scan=False, level=""),
)
"""The joint step of one chip, from the plain to the fastest configuration, one change at a time."""
CHIPS = (
    *(joint(target, "bert-base", "no", users=1024, level="") for target in ("v5e:1x1", "v6e:1x1", "v5p:1x1x1")),
    *(
        joint(target, "bert-base", users=64, attention="tiled", tokens_per_call=2048, scan=False, level="")
        for target in ("v5e:1x1", "v6e:1x1", "v5p:1x1x1")
    ),
)
"""One program on each kind of chip: the step on stored embeddings, and the joint step that is fastest on a v5e."""
DECODERS = (
    *(encoding("v5e:1x1", name) for name in ("embeddinggemma-300m", "modernbert-large", "qwen3-0.6b", "qwen3-4b")),
    encoding("v5e:2x2", "qwen3-4b", 4),
    encoding("v5e:1x1", "qwen3-8b"),
    encoding("v5e:2x2", "qwen3-8b", 2),
    encoding("v5e:2x2", "qwen3-8b", 4),
    encoding("v5e:2x2", "qwen3-8b", 4, scan=True),
    encoding("v5e:2x4", "qwen3-8b", 8),
)
"""Frozen encoders of up to 8 billion parameters, in bfloat16."""
PACKED = tuple(
    joint(target, "bert-base", users=64, attention="", tokens_per_call=tokens, shortest=16, longest=64, level="")
    for target, tokens in (("v5e:1x1", 2048), ("v5e:1x1", 8192), ("v6e:1x1", 8192))
)
"""The joint step as a run computes it, with several texts of 16 to 64 tokens in each row."""
HOPPER = (
    joint("cuda:h100", "bert-base", "no", users=1024, level=""),
    joint("cuda:h100", "bert-base", users=64, scan=False, level=""),
)
"""The same on an H100, which does not profit from tiled attention; its compiler needs `metarec_jax[cuda]`."""
CASES: Mapping[str, tuple[Case, ...]] = {
    "layer": LAYER,
    "inner": INNER,
    "scaling": SCALING,
    "large": LARGE,
    "batch": BATCH,
    "bought": BOUGHT,
    "chips": CHIPS,
    "hopper": HOPPER,
    "decoders": DECODERS,
    "packed": PACKED,
}


def config_of(case: Case, chips: int) -> Config:
    """The config of a run of the case."""
    return dataclasses.replace(
        preset("movielens-1m"),
        episodes=EpisodeConfig(buckets=(20,)),
        encoder=EncoderConfig(
            train=case.train,  # type: ignore[arg-type]
            compute=case.compute,  # type: ignore[arg-type]
        ),
        learner=LearnerConfig(hidden=128, compute=case.compute, user_side="none"),  # type: ignore[arg-type]
        train=TrainConfig(users_per_step=case.users * chips, users_per_device=case.users, shards=case.shards),
    )


def compile_case(case: Case, keep: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The estimate of a case, as a JSON object."""
    from metarec_jax.encoder import Execution, choose_execution
    from metarec_jax.train.aot import estimate, targets, workload

    target = targets.parse(case.target)
    if case.form == "texts":
        found = _texts(case, target, keep)
    elif case.form == "layer":
        found = _layer(case, target, keep)
    elif case.form:
        found = compile_inner(case, target, keep)
    else:
        sizes = {"items": case.items, "length": case.longest}
        work = workload.workload(config_of(case, target.chips), encoder=case.encoder, **sizes)
        run = Execution(case.attention, case.remat, case.scan, case.tokens_per_call)  # type: ignore[arg-type]
        run = run._replace(calls=1 if case.shards > 1 else run.calls)
        if not case.attention:
            run = choose_execution("tpu")._replace(tokens_per_call=case.tokens_per_call)
        work = dataclasses.replace(work, run=run, shortest=case.shortest)
        found = estimate.estimate(work, target, level=case.level, keep=keep)
        if not case.attention:
            return {"case": dataclasses.asdict(case), **found.to_json(), **_of_real_tokens(case, work)}
    return {"case": dataclasses.asdict(case), **found.to_json()}


def _of_real_tokens(case: Case, work: Any) -> dict[str, float]:
    """Share of a step's tokens that are real, and of the encoder's products that are of real tokens, as counted from
    shapes: products with weights by token, and those of attention by pair of tokens (all pairs of a row, or those of
    each text)."""
    import jax
    import numpy as np

    from metarec_jax.encoder import param_shapes
    from metarec_jax.train.aot import workload
    from metarec_jax.train.sharding import user_mesh

    texts = case.users * (work.support + work.config.episodes.query + 1)
    plan, turns = workload.chosen_texts(user_mesh(1), work, work.run, texts)[1:]
    rows = np.array([turns[workload.scope_of(length)] for length in plan.lengths]) * np.array(plan.per_call)
    lengths, sizes = np.array(plan.lengths), np.linspace(case.shortest, case.longest, texts).round()
    layers = jax.tree.leaves(param_shapes(work.architecture)["layer_0"])
    of_a_token = 2 * sum(leaf.size for leaf in layers if len(leaf.shape) == 2)
    of_a_pair = 4 * work.architecture.hidden_size
    real = of_a_token * sizes.sum() + of_a_pair * np.square(sizes).sum()
    computed = of_a_token * (rows * lengths).sum() + of_a_pair * (rows * lengths**2).sum()
    return {"real_tokens": float(sizes.sum() / (rows * lengths).sum()), "real_products": float(real / computed)}


def _texts(case: Case, target: Any, keep: Any) -> Any:
    """Encoding of texts by a frozen encoder."""
    from metarec_jax.encoder import Execution
    from metarec_jax.train.aot import encoding, workload

    config = config_of(dataclasses.replace(case, shards=1), 1)
    work = workload.workload(config, encoder=case.encoder, length=TEXT)
    run = Execution(case.attention, case.remat, case.scan, case.tokens_per_call)  # type: ignore[arg-type]
    work = dataclasses.replace(work, run=run)
    return encoding.estimate_encoding(work, target, texts=case.users, shards=case.shards, level=case.level, keep=keep)


def compile_inner(case: Case, target: Any, keep: Callable[[str], Any] | None = None, *, kernel: int = 0) -> Any:
    """Compile the program that `benchmarks.inner_loop` times: its meta-gradient, with all users at once.

    Args:
        case: form, data type and users.
        target: the parsed target.
        keep: called with the text of the compiled program.
        kernel: users of a block of the Pallas kernel; 0 for XLA's program.

    Returns:
        The estimate.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks import ours
    from benchmarks.cases import STANDARD
    from benchmarks.tasks import task_of
    from metarec_jax.train.aot import estimate, targets
    from metarec_jax.train.sharding import by_user, user_mesh

    task = task_of(dataclasses.replace(STANDARD, users=case.users))
    form, compute = case.form, jnp.dtype(case.compute)
    model, trainable, tables, episodes = ours.problem(task, form, compute=compute, kernel=kernel)  # type: ignore
    mesh = user_mesh(among=targets.devices(target))

    def abstract(tree: Any, spec: Any) -> Any:
        place = jax.sharding.NamedSharding(mesh, spec)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree)

    everywhere = jax.sharding.PartitionSpec()
    arguments = (abstract(trainable, everywhere), abstract(tables, everywhere), abstract(episodes, by_user(mesh)))
    with jax.set_mesh(mesh):
        lowered = jax.jit(ours.gradient_of(model, 0)).lower(*arguments)
    return estimate.compiled_for(target, lowered, chips=mesh.size, users=case.users, level=case.level, keep=keep)


def _layer(case: Case, target: Any, keep: Any) -> Any:
    """Output of a layer for 512 texts of 32 tokens, and its derivative by parameters and input."""
    import jax
    import jax.numpy as jnp

    from metarec_jax.encoder import Execution, param_shapes, run_layers
    from metarec_jax.train.aot import estimate, targets, workload
    from metarec_jax.train.sharding import user_mesh

    architecture = workload.ENCODERS[case.encoder]
    shapes = param_shapes(architecture)
    texts = case.tokens_per_call // 32
    x = jax.ShapeDtypeStruct((texts, 32, architecture.hidden_size), jnp.dtype(case.compute))
    mesh = user_mesh(among=targets.devices(target))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        ({"layer_0": shapes["layer_0"]}, x, jax.ShapeDtypeStruct((texts, 32), jnp.float32), x),
    )
    how = {"first": 0, "last": 1, "dtype": case.compute, "run": Execution(attention=case.attention)}  # type: ignore

    def gradient(params: Any, x: Any, mask: Any, cotangent: Any) -> Any:
        back = jax.vjp(lambda params, x: run_layers(params, architecture, x, mask, **how), params, x)[1]
        return back(cotangent)

    with jax.set_mesh(mesh):
        lowered = jax.jit(gradient).lower(*arguments)
    return estimate.compiled_for(target, lowered, chips=1, users=0, level=case.level, keep=keep)


def run(
    cases: Iterable[Case],
    out: Path,
    reporter: Reporter = QUIET,
    *,
    compiled: Callable[[Case], dict[str, Any]] = compile_case,
) -> list[dict[str, Any]]:
    """Compile the cases that a file does not hold yet, and write it after each of them.

    Args:
        cases: the cases.
        out: the file of results.
        reporter: told the duration of each case.
        compiled: case -> its row.

    Returns:
        All rows of the file.
    """
    from metarec_jax.core.atomic_files import make_folder, write_text
    from metarec_jax.core.environment import environment

    rows = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    make_folder(out.parent)
    for case in cases:
        if any(Case(**row["case"]) == case for row in rows):
            continue
        started = time.perf_counter()
        rows = [row for row in rows if row["case"]["name"] != case.name] + [compiled(case)]
        reporter.note(f"{case.name}: {time.perf_counter() - started:.0f} s")
        write_text(out, json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")
    return rows


def table(rows: Sequence[Mapping[str, Any]], group: str) -> str:
    """The cases of a group that `rows` hold, as a Markdown table. The first half are facts, the second estimates."""
    found = {row["case"]["name"]: row for row in rows}
    counted = "texts" if CASES[group][0].form == "texts" else "users"
    columns = "peak GiB | GFLOP | GB moved | sent MB | est. ms | links ms | matrix units"
    of_real = any("real_products" in found.get(case.name, ()) for case in CASES[group])
    columns += " | of real tokens" if of_real else ""
    lines = [
        f"| case | fits | {columns} | {counted}/s at best |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|" + "--:|" * of_real,
    ]
    for row in (found[case.name] for case in CASES[group] if case.name in found):
        name = row["case"]["name"].removesuffix(", level ")
        if row["peak_memory"] is None:
            lines.append(f"| {name} | no: {row['why']} |" + " |" * 8)
            continue
        sent = sum(part["bytes"] for part in row["collectives"].values())
        figures = (
            f"{row['peak_memory'] / 2**30:.2f}",
            f"{row['flops'] / 1e9:,.0f}",
            f"{row['bytes'] / 1e9:,.2f}",
            f"{sent / 1e6:,.1f}",
            f"{row['seconds'] * 1e3:,.2f}",
            f"{row['link_seconds'] * 1e3:,.2f}",
            f"{row['utilisation']:.0%}",
            *([f"{row['utilisation'] * row['real_products']:.0%}"] if of_real else []),
            f"{row['users_per_second']:,.0f}",
        )
        lines.append(f"| {name} | {'yes' if row['fits'] else 'no'} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    from metarec_jax.train.aot import targets

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; all where none is given")
    parser.add_argument("--json", type=Path, required=True, help="file of results, which is continued")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in CASES:
            parser.error(f"there are no cases called {name!r}; there are {', '.join(CASES)}")
    cases = [case for name in arguments.names or CASES for case in CASES[name]]
    targets.prepare_process([targets.parse(case.target) for case in cases])
    from metarec_jax.core.console import make_reporter

    run(cases, arguments.json, make_reporter())


if __name__ == "__main__":
    main()
