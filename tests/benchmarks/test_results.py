"""Committed tables are made anew by one command."""

import shlex

import pytest

from benchmarks import results
from metarec_jax.cli.evaluate import starting_evaluation


def test_commands_are_those_of_this_version(capsys):
    results.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(results.COMMITTED)
    for command, *_ in results.COMMITTED.values():
        module, *rest = shlex.split(command)
        if module == "metarec_jax":
            assert starting_evaluation(rest[1:])[0] == rest[rest.index("--protocol") + 1]


def test_every_file_that_is_copied_is_committed():
    for _, place, files, against in results.COMMITTED.values():
        for file in (*files, *["compare.json"] * bool(against)) or [""]:
            assert (results.HERE / place / file).is_file()


def test_what_is_compared_with_is_made_before():
    names = list(results.COMMITTED)
    for name, result in results.COMMITTED.items():
        assert result.against in [*names[: names.index(name)], ""]


def test_files_are_copied_to_the_committed_folder(tmp_path):
    wanted = {"evaluation.md": "tables", "evaluation.json": "tables", "methods.png": "plots"}
    for name, folder in {**wanted, "other.json": "tables"}.items():
        (tmp_path / "run" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / folder / name).write_text(name)
    results.publish(tmp_path / "run", tmp_path / "committed" / "place", list(wanted))
    found = {path.name: path.read_text() for path in (tmp_path / "committed" / "place").iterdir()}
    assert found == {name: name for name in wanted}


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        results.main(["melo"])
    assert "'melo'" in capsys.readouterr().err
