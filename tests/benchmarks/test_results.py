"""Committed tables are made anew by one command."""

import shlex

import pytest

from benchmarks import results
from metarec_jax.cli.evaluate import starting_evaluation


def test_commands_are_those_of_this_version(capsys):
    results.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(results.COMMITTED)
    for command, _, _ in results.COMMITTED.values():
        module, *rest = shlex.split(command)
        if module == "metarec_jax":
            assert starting_evaluation(rest[1:])[0] == rest[rest.index("--protocol") + 1]


def test_every_file_that_is_copied_is_committed():
    for _, place, files in results.COMMITTED.values():
        for file in files or [""]:
            assert (results.HERE / place / file).is_file()


def test_files_are_copied_to_the_committed_folder(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("evaluation.md", "evaluation.json", "state.json"):
        (tmp_path / "run" / name).write_text(name)
    results.publish(tmp_path / "run", tmp_path / "committed" / "place", results.TABLE)
    found = {path.name: path.read_text() for path in (tmp_path / "committed" / "place").iterdir()}
    assert found == {"evaluation.md": "evaluation.md", "evaluation.json": "evaluation.json"}


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        results.main(["melo"])
    assert "'melo'" in capsys.readouterr().err
