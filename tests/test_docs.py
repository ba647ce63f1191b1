"""What the documentation shows runs, from top to bottom, and does what it says."""

import re
from pathlib import Path

import jax.numpy as jnp

DOCS = Path(__file__).parents[1] / "docs"


def test_the_guide_to_updaters_runs(capsys):
    """Its rule is short, learns, and the outer loop moves both of its numbers."""
    text = (DOCS / "updaters.md").read_text()
    rule, use = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(rule.splitlines()) <= 30
    names: dict = {}
    exec(rule + use, names)
    assert re.fullmatch(r"query loss \d\.\d+, rate \d\.\d+\n", capsys.readouterr().out)
    phi, start = names["state"].trainable.phi, names["falling"]().init(None)
    assert all(jnp.abs(phi[name] - start[name]) > 1e-3 for name in ("log_rate", "log_decay"))
    factoring = names["model"].form == "auto" and not names["model"].updater.elementwise
    assert factoring, "the rule runs in Gram space, as the guide says"


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
