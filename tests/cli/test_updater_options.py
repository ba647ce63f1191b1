"""Every updater from the command line: trained, gone on with, asked for recommendations, evaluated; and refused."""

import json
import math
import re
import signal
from pathlib import Path

import jax
import pytest
from helpers import assert_equal
from training import Watch, trace_of

from metarec_jax.cli.train import interrupted
from metarec_jax.core.kinds import UPDATERS
from metarec_jax.evaluation import methods
from metarec_jax.train import run_folder
from metarec_jax.train.build import build
from metarec_jax.train.start import fit, start
from metarec_jax.train.state import first_state

ANIL = ("--updater.adapted", "output/.*")
KINDS = {kind: ("--updater.kind", kind, *(ANIL if kind == "ridge" else ())) for kind in UPDATERS.names()}
OTHERS = {
    "anil": ANIL,
    "boil": ("--updater.adapted", "hidden/.*"),
    "cavia": ("--learner.context", "3", "--updater.adapted", "context/.*"),
    "first order": ("--updater.order", "first"),
    "reptile": ("--updater.order", "reptile", "--updater.learn-rate", "no"),
    "bfloat16": ("--learner.compute", "bfloat16"),
}
RULES = KINDS | OTHERS
FAST = {"gradient", "ridge", "amortised"}
"""Rules whose tests are not slow ones: the others are trained and served as one of these is."""
SMALL = (
    *("--preset", "synthetic", "--learner.user-side", "none", "--learner.head", "rating", "--learner.hidden", "8"),
    *("--updater.steps", "2", "--updater.rate", "0.3"),
    *("--train.epochs", "1", "--train.users-per-step", "80", "--train.devices", "1"),
)


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("rule", [pytest.param(r, marks=[pytest.mark.slow] * (r not in FAST)) for r in RULES])
def test_an_updater_is_trained_and_recommends(metarec, rule):
    status, out, err = metarec("train", *SMALL, *RULES[rule], "--out", "run", "--json")
    assert status == 0, err
    assert json.loads(out)["finished"]
    in_full = rule in KINDS and UPDATERS.get(rule).elementwise
    assert err.count("needs matrices in full: every user's inner loop gets a copy") == in_full, "said once, or never"
    (line,) = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert math.isfinite(line["train_loss"])
    assert math.isfinite(line["validation_loss"])

    status, out, err = metarec("recommend", "run", "--rate", "id:3=5", "--rate", "id:4=1", "-k", 5, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)["recommended"]
    assert len(found) == 5
    assert all(1 <= item["score"] <= 5 for item in found)
    assert all(item.get("uncertainty", 0) > 0 for item in found) == (rule == "ridge")


def test_the_standard_deviation_of_a_rating_is_shown(metarec):
    """Where the updater knows it, beside the expected rating."""
    assert metarec("train", *SMALL, *KINDS["ridge"], "--out", "run")[0] == 0
    status, out, _ = metarec("recommend", "run", "--rate", "id:3=5", "-k", 5)
    assert status == 0
    header, *rows = out.split("Recommended")[1].strip().splitlines()
    assert header.split()[-2:] == ["standard", "deviation"]
    assert len(rows) == 5
    assert all(re.search(r" \d\.\d\d +\d+ +\d\.\d\d *$", row) for row in rows)


@pytest.mark.parametrize("kind", ["momentum", pytest.param("learned", marks=pytest.mark.slow)])
def test_a_training_that_is_gone_on_with_ends_in_the_same_bits(metarec, capsys, kind):
    """Stopped in the middle of the second of three epochs, by SIGTERM."""

    def stop_at_third(step):
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    arguments = ["train", *SMALL, *KINDS[kind], "--train.epochs", 3]
    assert metarec(*arguments, "--out", "whole")[0] == 0
    run, experiment = start(run_folder.open_run(Path("whole")).config, "parts")
    fitted = fit(run, experiment, reporter=Watch(on_step=stop_at_third))
    assert interrupted(fitted, run) == 128 + signal.SIGTERM
    assert re.search(r"stopped by SIGTERM after (3|4) steps; everything is saved", capsys.readouterr().err)
    assert metarec("train", "--resume", "parts")[0] == 0
    whole, parts = (run_folder.open_run(Path(name)) for name in ("whole", "parts"))
    experiment = build(whole.config)
    found, wanted = trace_of(parts, experiment), trace_of(whole, experiment)
    assert max(wanted.states) == 6
    assert_equal(found.states, wanted.states)
    assert (found.progress, found.metrics) == (wanted.progress, wanted.metrics)


@pytest.mark.slow
def test_an_updater_is_compared_with_its_twin(metarec, evaluated):
    """Reptile's, of whose twin no parameter would move if its order were Reptile's too."""
    assert metarec("train", *SMALL, *OTHERS["reptile"], "--out", "run")[0] == 0
    found = {method["name"]: method for method in json.loads(evaluated("run", "--json"))["methods"]}
    assert {methods.META, methods.TWIN, methods.TUNED} <= set(found)
    twin = run_folder.open_run(Path("run/seed-0/twin"))
    experiment = build(twin.config)
    before = first_state(experiment, len(experiment.train.source)).trainable.theta
    (after,) = trace_of(twin, experiment).states.values()
    for layer in ("hidden", "output"):
        moved = jax.tree.map(lambda a, b: float(abs(a - b).max(initial=0)), after.trainable.theta[layer], before[layer])
        assert moved["bias"] > 1e-4, "the twin has learned something"


# Mistakes

UNFIT = {
    "a pattern that matches nothing": (
        ("--updater.adapted", "output/.*", "hiden/.*"),
        r"updater\.adapted: 'hiden/\.\*' matches no parameter; there are hidden/bias, hidden/item/kernel, ",
    ),
    "a pattern that is none": (
        ("--updater.adapted", "hidden/("),
        r"updater\.adapted: 'hidden/\(' is not a regular expr",
    ),
    "no pattern": (("--updater.adapted",), r"updater\.adapted is \(\); it must be a tuple of at least one pattern"),
    "ridge over more than a layer": (
        ("--updater.kind", "ridge"),
        r"updater\.kind 'ridge' solves for one linear layer.* use --updater\.adapted 'output/\.\*'",
    ),
    "context parameters that nothing adapts": (
        ("--learner.context", "3"),
        r"learner\.context is 3, but no pattern of updater\.adapted .* matches context/value: .*add 'context/\.\*'",
    ),
    "an infinite rate": (("--updater.rate", "inf"), r"updater\.rate is inf; it must be a finite number above 0"),
    "an infinite precision": (
        (*KINDS["ridge"], "--updater.precision", "inf"),
        r"updater\.precision is inf; it must be a finite number",
    ),
    "a first-order solution": (
        ("--updater.kind", "imaml", "--updater.order", "first"),
        r"updater\.order is 'first', but updater\.kind 'imaml' is differentiated.* use --updater\.order second",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), UNFIT.values(), ids=UNFIT.keys())
def test_an_updater_that_does_not_fit_is_refused_before_anything_is_written(metarec, arguments, message):
    """And before anything is encoded: what comes first is what a user waits for."""
    status, out, err = metarec("train", *SMALL, *arguments, "--out", "run")
    assert (status, out) == (2, "")
    assert re.search(rf"^metarec: {message}", err, re.MULTILINE)
    assert err.count("metarec: ") == 1
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("option", ["kind", "order", "learn-rate"])
def test_an_unknown_choice_is_refused_with_those_there_are(metarec, option):
    status, out, err = metarec("train", *SMALL, f"--updater.{option}", "sgd", "--out", "run")
    assert (status, out) == (2, "")
    assert "'sgd'" in err
    assert {"kind": "meta-sgd", "order": "reptile", "learn-rate": "layer-step"}[option] in err
    assert list(Path.cwd().iterdir()) == []


DIVERGING = {
    "an inner loop": (
        ("--updater.rate", "1e20"),
        r"since the inner loop of user '\d+' diverged at inner step \d, and \d+ more of 80 users: lower",
    ),
    "a learned rate": (
        ("--train.rate", "1e3", "--learner.no-prior"),
        r"since exp\(phi/log_rate/[a-z/]+\).* had become infinite or NaN: lower",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), DIVERGING.values(), ids=DIVERGING.keys())
def test_what_diverges_is_named_and_nothing_of_it_is_saved(metarec, arguments, message):
    status, out, err = metarec("train", *SMALL, *arguments, "--out", "run")
    assert (status, out) == (2, "")
    wanted = rf"^metarec: the training loss became (nan|inf) at outer step \d \(epoch 1\), {message} --train\.rate or "
    assert re.search(wanted, err, re.MULTILINE), err
    assert not list(Path("run/checkpoints").glob("[0-9]*"))
    status, out, err = metarec("recommend", "run")
    assert (status, out) == (2, "")
    assert "run holds no file of trained parameters yet: no epoch has ended" in err
