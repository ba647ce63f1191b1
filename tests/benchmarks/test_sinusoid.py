"""The sinusoids at a smoke size: MAML learns to learn, joint training does not, and the numbers are written."""

import json

import jax
import numpy as np
import pytest
from helpers import assert_close

from benchmarks import report, sinusoid


def test_errors_are_those_of_the_network_before_and_fall_on_the_points_that_it_adapts_to():
    theta = sinusoid.first_params(jax.random.key(0))
    tasks = sinusoid.draw(jax.random.key(1), 4, 10, 3)
    tasks = tasks._replace(query=tasks.support)
    found = sinusoid.errors(0.003, (".*",), theta, tasks)
    assert found.shape == (4, len(sinusoid.STEPS))
    before = [(sinusoid.network(theta, x) - y) ** 2 for x, y in zip(tasks.query["x"], tasks.query["y"])]
    assert_close(found[:, 0], np.mean(before, axis=1))
    assert (np.diff(found, axis=1) < 0).all()


@pytest.mark.slow
def test_one_step_helps_maml_and_not_the_network_that_was_trained_on_all_tasks(tmp_path, capsys):
    written, plot = tmp_path / "sinusoid.json", tmp_path / "sinusoid.png"
    sinusoid.main(["--iterations", "3000", "--test-tasks", "100", "--json", str(written), "--plot", str(plot)])
    document = json.loads(written.read_text())
    few, many = document["panels"]
    assert [few["title"], many["title"]] == ["5 points", "10 points"]
    maml, joint = (np.array(many["values"][name]) for name in ("MAML", sinusoid.PRETRAINED))
    assert maml[1] < 0.6 * maml[0]
    assert maml[10] < maml[1] < 0.7 * joint[1]
    assert plot.stat().st_size > 10_000
    table = report.block("curves", str(written), "10 points")
    assert table.splitlines()[0].count("|") == 2 + len(sinusoid.STEPS)
    assert "| MAML |" in table
    assert table.split("\n\n")[0] in capsys.readouterr().out
