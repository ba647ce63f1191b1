"""The sinusoids at a smoke size: MAML learns to learn, joint training does not, and the numbers are written."""

import json

import numpy as np

from benchmarks import report, sinusoid


def test_one_step_helps_maml_and_not_the_network_that_was_trained_on_all_tasks(tmp_path, capsys):
    written, plot = tmp_path / "sinusoid.json", tmp_path / "sinusoid.png"
    sinusoid.main(["--iterations", "1500", "--test-tasks", "100", "--json", str(written), "--plot", str(plot)])
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
