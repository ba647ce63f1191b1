"""Any folder name works, and commands to type are quoted for the shell."""

import shlex

import pytest
from cases.metarec_process import SMALL, metarec, write_data

from metarec_jax.core.command_paths import path_argument


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("../runs/a", marks=pytest.mark.slow),
        "my runs/ünï \N{CLAPPER BOARD} 50%25 a#b?c x..y quo\"te it's star*[1] $x",
    ],
)
def test_a_run_is_trained_resumed_and_asked_in_a_folder_of_any_name(tmp_path, name):
    work = tmp_path / "work"
    data = write_data(work)
    status, out, err = metarec("train", *data, *SMALL, "--out", name, cwd=work)
    assert status == 0, err
    (line,) = (line for line in out.splitlines() if line.startswith("next: "))
    assert shlex.split(line)[:3] == ["next:", "metarec", "evaluate"]
    folder = shlex.split(line)[3]
    assert (work / folder).resolve() == (work / name).resolve()
    status, out, err = metarec("train", "--resume", folder, cwd=work)
    assert (status, out.splitlines()[0].startswith("trained 1 epochs")) == (0, True), err
    status, out, err = metarec("recommend", folder, "--rate", "id:1=5", "-k", "1", cwd=work)
    assert (status, "Lamp" in out) == (0, True), err


def test_paths_are_shown_as_words_of_a_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "a", tmp_path / "a b", tmp_path / "-x", tmp_path.parent / "it's", tmp_path / 'q"$x'):
        (word,) = shlex.split(path_argument(path))
        assert not word.startswith("-")
        assert (tmp_path / word).resolve() == path.resolve()
    assert path_argument(tmp_path / "runs" / "a") == "runs/a"
