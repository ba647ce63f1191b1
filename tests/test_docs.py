"""What the documentation shows runs, from top to bottom, and the names, paths and options of its pages exist."""

import dataclasses
import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

DOCS = Path(__file__).parents[1] / "docs"
ROOT = DOCS.parent
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *sorted(DOCS.rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
WIDTH = 160
OF_THE_GUIDE = {"learner.scale"}
"""Options of the plugin that docs/extending.md writes."""


@every_page
def test_lines_are_short_except_in_tables_and_code(page):
    lines = FENCED.sub("", page.read_text(encoding="utf-8")).splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("|")] == []


def test_the_readme_has_at_most_130_lines():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@every_page
def test_names_of_the_package_exist(page):
    for name in sorted(set(re.findall(r"\bmetarec_jax(?:\.[A-Za-z_]\w*)+", page.read_text(encoding="utf-8")))):
        assert exists(name), name


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            functools.reduce(getattr, parts[length:], found)
        except AttributeError:
            return False
        return True
    return False


@every_page
def test_paths_and_links_exist(page):
    text = page.read_text(encoding="utf-8")
    places = "metarec_jax|tests|docs|examples|notebooks|benchmarks/torch_reference|benchmarks/results"
    paths = re.findall(rf"(?<![\w/.-])((?:{places})/[\w./-]*\w)", text)
    made_by_commands = "benchmarks/results/local.json"
    assert [path for path in paths if path != made_by_commands and not _is_path(ROOT / path)] == []
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text))]
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def _is_path(path: Path) -> bool:
    """Whether there is such a file or folder, or a notebook of that name without its ending."""
    return path.exists() or path.with_suffix(".ipynb").exists()


@every_page
def test_options_exist(page):
    found = re.findall(r"--([a-z]+(?:\.[a-z][a-z-]*)+)", page.read_text(encoding="utf-8"))
    assert {option.replace("-", "_") for option in found} <= options() | OF_THE_GUIDE


@functools.cache
def options() -> set[str]:
    """Every option with a section, of trainings and pretrainings, with those that only some kinds have."""
    from metarec_jax.config.pretrain import PretrainConfig
    from metarec_jax.config.run import Config
    from metarec_jax.core.kinds import LEARNERS, UPDATERS

    found = {*_paths(Config()), *_paths(PretrainConfig())}
    for section, registry in (("learner", LEARNERS), ("updater", UPDATERS)):
        for name in registry.names():
            found |= {f"{section}.{field.name}" for field in dataclasses.fields(registry.get(name))}
    return found | {f"{section}.no_{field}" for section, _, field in (name.partition(".") for name in found)}


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _paths(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_the_guide_to_updaters_runs(capsys):
    """Its rule is short, learns, and the outer loop moves both of its numbers."""
    text = (DOCS / "updaters.md").read_text()
    rule, use, check = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(rule.splitlines()) <= 30
    names: dict = {}
    exec(rule + use + check, names)
    assert re.fullmatch(r"query loss \d\.\d+, rate \d\.\d+\n\d+ properties hold\n", capsys.readouterr().out)
    phi, start = names["state"].trainable.phi, names["falling"]().init(names["state"].trainable.theta)
    assert all(jnp.abs(phi[name] - start[name]) > 1e-3 for name in ("log_rate", "log_decay"))
    factoring = names["model"].form == "auto" and not names["model"].updater.elementwise
    assert factoring, "the rule runs in Gram space, as the guide says"


def test_the_guide_to_the_engine_runs(capsys):
    """It learns, adapts one task, and computes in Gram space."""
    first, second, check = re.findall(r"```python\n(.*?)```", (DOCS / "engine.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(first, names)
    before, after, shapes = capsys.readouterr().out.splitlines()
    assert float(after.split()[-1]) < 0.5 * float(before.split()[-1])
    assert shapes == "(32, 1) (3,)"
    exec(second + check, names)
    loss, kept = capsys.readouterr().out.splitlines()
    assert float(loss.split()[-1]) > 0
    assert kept == "structures, shapes and data types are kept"


def test_the_guide_to_the_engine_lists_every_function():
    from metarec_jax import meta

    text = (DOCS / "engine.md").read_text()
    assert [name for name in meta.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_the_guide_lists_every_kind_of_updater():

    from metarec_jax.core.kinds import UPDATERS

    text = (DOCS / "updaters.md").read_text()
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert set(UPDATERS.names()) <= listed


def test_the_table_of_encoders_is_that_of_the_package():
    from metarec_jax.encoder.architectures import ARCHITECTURES

    text = (DOCS / "encoders.md").read_text()
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", text, re.MULTILINE))
    assert list(rows) == list(ARCHITECTURES)
    for kind, architecture in ARCHITECTURES.items():
        model, _, positions, types, pooler = rows[kind].split(" | ")
        assert model == f"`{architecture.model}`"
        assert ("count padding" in positions) == architecture.counts_padding
        assert ("bias by distance" in positions) == (architecture.relative_bias is not None)
        assert (types == "no") == (architecture.fixed.get("type_vocab_size") == 0)
        assert (pooler == "no") == ("has_pooler" in architecture.fixed)


@pytest.mark.slow
def test_the_guide_to_adapting_the_encoder_runs(capsys):
    """Its factors are trained by the outer loop, through the inner one."""
    (example,) = re.findall(r"```python\n(.*?)```", (DOCS / "adapting-the-encoder.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(example, names)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 3
    before, after = names["theta"]["encoder"], names["state"].trainable.theta["encoder"]
    for kind in ("query", "value"):
        assert jnp.abs(after["layer_1"][kind]["lora_b"] - before["layer_1"][kind]["lora_b"]).max() > 1e-4


def test_the_page_of_protocols_lists_every_protocol_and_mode_and_its_commands_parse():
    import shlex

    from metarec_jax.cli.arguments import parse
    from metarec_jax.cli.evaluate import PROTOCOLS, EvaluateArguments, check_protocol, starting_evaluation
    from metarec_jax.evaluation.metric_sets import MODES

    text = (DOCS / "protocols.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)
    assert set(rows) == set(PROTOCOLS) | set(MODES)
    commands = [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("metarec evaluate --protocol")]
    assert {arguments[1] for arguments in commands} == set(PROTOCOLS)
    for arguments in commands:
        name, config = starting_evaluation(arguments)
        chosen = parse(EvaluateArguments, "evaluate", arguments, EvaluateArguments(config=config))
        check_protocol(name, chosen.config)


def test_the_comparison_of_learners_is_that_of_the_committed_tables():
    import json

    from metarec_jax.core.kinds import LEARNERS

    def short(number):
        return f"{number:+.3f}".replace("0.", ".", 1)

    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (DOCS / "learners.md").read_text(), re.MULTILINE)
    for kind in LEARNERS.names():
        file = DOCS.parent / "benchmarks" / "results" / "learners-ml-100k" / kind / "evaluation.json"
        (model,) = (m for m in json.loads(file.read_text())["methods"] if m["name"] == "meta-learned")
        names = ("mae", "rmse", "ndcg@5", "precision@5", "mrr@5", "auc")
        changes = [model["differences"]["item mean + user bias"][name] for name in names]
        means = [short(model["metrics"][name]["mean"])[1:] for name in names]
        star = {True: r"\*", False: ""}
        differences = [
            f"{short(c['difference'])} [{short(c['low'])}, {short(c['high'])}]{star[c['excludes_zero']]}"
            for c in changes
        ]
        found = [cells.split(" | ") for name, cells in rows if name == kind]
        assert means in found
        assert differences in found
