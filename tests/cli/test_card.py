"""`metarec card`, and the card.md that training and evaluation write."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
from trained import small_config, small_data, trained_run

from metarec_jax.core.kinds import SOURCES
from metarec_jax.train import about
from metarec_jax.train.build import build

pytestmark = pytest.mark.usefixtures("empty_folder")
RUNS = Path(__file__).parents[1] / "golden" / "runs"


@pytest.fixture
def run():
    """A copy of a finished run that was not evaluated."""
    return Path(shutil.copytree(trained_run(), "run"))


def test_training_writes_the_card_that_the_command_prints(metarec, run, contents):
    before = contents(run)
    status, out, _ = metarec("card", run)
    assert (status, out) == (0, (trained_run() / "card.md").read_text())
    assert contents(run) == before
    for text in (
        "# Model card: run",
        f"- ratings: {len(small_data()):,}",
        f"- items: {len(small_data().items):,}",
        "- licence of the data: none is needed: the ratings are drawn by this package",
        "`metarec evaluate RUN` adds test metrics with intervals",
        "None: this run was not trained privately",
        "metarec train --config config.json --out NEW",
        json.loads((run / "inputs.json").read_text())["ratings"],
        "- tables/evaluation.json is not there: the run has no test metrics",
    ):
        assert text in out


def test_the_users_and_losses_of_the_card_are_those_of_the_run(printed_json, run):
    tree, experiment = printed_json("card", run), build(small_config())
    users = {"train": 0, "validation": 0, "test": 0}
    users |= {part: len(getattr(experiment.splits, part)) for part in users}
    assert tree["split"]["users"] == users
    assert tree["split"]["description"] == experiment.division.description
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert tree["training"]["epochs"] == lines[-1]["epoch"] == 2
    assert tree["training"]["least_validation_loss"]["loss"] == min(line["validation_loss"] for line in lines)


def test_an_evaluation_adds_its_own_metrics_and_intervals(evaluated, printed_json, run):
    evaluated(run)
    table = json.loads((run / "tables" / "evaluation.json").read_text())
    own = next(method for method in table["methods"] if method["name"] == table["subject"])
    reference = table["references"][0]
    tree, text = printed_json("card", run), (run / "card.md").read_text()
    (scenario,) = tree["evaluation"]["scenarios"]
    assert (scenario["method"], scenario["against"]) == (table["subject"], reference)
    assert [metric["name"] for metric in scenario["metrics"]] == [metric["name"] for metric in table["metrics"]]
    with_intervals = 0
    for metric in scenario["metrics"]:
        cell, difference = (found.get(metric["name"]) for found in (own["metrics"], own["differences"][reference]))
        assert metric["mean"] == cell["mean"]
        if cell["interval"] is not None and difference is not None:
            with_intervals += 1
            assert metric["interval"] == [cell["interval"]["low"], cell["interval"]["high"]]
            assert metric["difference_interval"] == [difference["low"], difference["high"]]
            assert f"{cell['mean']:.3f} [{cell['interval']['low']:.3f}, {cell['interval']['high']:.3f}]" in text
            assert f"{difference['difference']:+.3f} [" in text
    assert with_intervals > 3
    assert tree["missing"] == []
    assert not tree["evaluation"]["older_than_parameters"]
    (run / "parameters.safetensors").touch()
    assert printed_json("card", run)["evaluation"]["older_than_parameters"]


@pytest.mark.parametrize("layout", [1, 2])
def test_the_card_of_an_earlier_run_says_what_is_missing(printed_json, metarec, layout):
    shutil.copytree(RUNS / f"layout-{layout}", "run")
    tree = printed_json("card", "run")
    files = ["about.json", "inputs.json", "goodput.json", "tables/evaluation.json"]
    assert [what.partition(" is not there: ")[0] for what in tree["missing"]] == files
    assert tree["data"]["items"] == 120
    assert tree["training"]["epochs"] == 2
    status, out, _ = metarec("card", "run")
    assert status == 0
    assert all(what in out for what in tree["missing"])


DAMAGES = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "7",
    "an empty object": "{}",
    "of other types": '{"data": 1, "split": [], "environment": {}, "seconds": {"steps": "x"}, "methods": 3}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(metarec, printed_json, run, damage):
    files = ["about.json", "inputs.json", "goodput.json", "tables/evaluation.json"]
    (run / "tables").mkdir(exist_ok=True)
    for file in files:
        (run / file).write_text(DAMAGES[damage])
    found = [what.partition(" is damaged: ")[0] for what in printed_json("card", run)["missing"]]
    assert found == [file for file in files if (file, damage) != ("inputs.json", "an empty object")]
    assert metarec("card", run)[0] == 0


def test_other_folders_have_no_card(refused):
    assert "nowhere is not a run folder" in refused("card", "nowhere")


# Licences


def test_every_published_data_set_states_its_terms_with_an_address():
    for name in SOURCES.names():
        source = SOURCES.get(name)
        if name in ("auto", "table", "recbole", "row-store", "synthetic"):  # files of the user's own, or none
            continue
        assert re.search(r"\(https?://\S+\)|\(https?://\S+, https?://\S+\)", source.licence), name
        assert "\n" not in source.licence


@pytest.mark.parametrize(
    ("layout", "loaded", "names"),
    [
        ("movielens-1m", True, ("movielens-1m", "GroupLens", "ml-1m-README.txt")),
        ("movielens-1m", False, ("movielens-1m", "GroupLens", "ml-1m-README.txt")),
        ("movietweetings", True, ("movietweetings", "MIT", "sidooms")),
        ("", False, ("own data",)),
        ("columns separated by ','", True, ("own data",)),
    ],
)
def test_the_terms_are_those_of_the_files_that_were_read(layout, loaded, names):
    experiment = build(small_config())
    read = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, layout=layout))
    found = about.describe(read, loaded=loaded)["data"]
    assert all(name in found["name"] + found["licence"] for name in names)
    assert bool(found["licence"]) == (len(names) > 1)


def test_own_data_asks_the_owner_for_the_licence(metarec, run):
    tree = json.loads((run / "about.json").read_text())
    tree["data"] |= {"name": "own data", "licence": "", "loaded": False}
    (run / "about.json").write_text(json.dumps(tree))
    _, out, _ = metarec("card", run)
    assert "- licence of the data: not known to this package: the owner of the run has to state it" in out
    assert "- note: the data set was passed in Python" in out
