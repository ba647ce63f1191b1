"""The table of commands, help, and what happens before a command runs."""

import importlib
import sys
import types

import pytest

import metarec_jax
from metarec_jax.cli.main import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_a_module_that_explains_itself(metarec, command):
    assert callable(importlib.import_module(f"metarec_jax.cli.{command}").run)
    status, out, err = metarec(command, "--help")
    assert (status, err) == (0, "")
    assert f"metarec {command}" in out
    assert f"\n  {command} " in metarec("--help")[1]


def test_help_fits_a_screen(metarec):
    status, out, _ = metarec("--help")
    assert status == 0
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) <= 100


def test_no_command_is_a_mistake(metarec):
    status, out, err = metarec()
    assert (status, out) == (2, "")
    assert err.startswith("usage: metarec COMMAND")


def test_the_version_is_printed(metarec):
    assert metarec("--version") == (0, f"metarec_jax {metarec_jax.__version__}\n", "")


@pytest.mark.parametrize("arguments", ["train --trian.epochs 3", "train --train.epochs x", "recommend", "train --out"])
def test_what_tyro_refuses_has_the_same_status(metarec, arguments):
    status, out, _ = metarec(*arguments.split())
    assert (status, out) == (2, "")


def test_a_plugin_is_imported_before_the_options_are_read(metarec, empty_folder, monkeypatch):
    monkeypatch.syspath_prepend(str(empty_folder))
    (empty_folder / "plugin_of_this_test.py").write_text("print('imported')")
    for arguments in (["--plugin", "plugin_of_this_test", "train"], ["train", "--plugin=plugin_of_this_test"]):
        monkeypatch.delitem(sys.modules, "plugin_of_this_test", raising=False)
        status, out, _ = metarec(*arguments, "--help")
        assert status == 0
        assert out.startswith("imported\nusage: metarec train")
    monkeypatch.delitem(sys.modules, "plugin_of_this_test")


def test_public_names_are_where_the_package_says():
    for name in metarec_jax.__all__:
        assert not isinstance(getattr(metarec_jax, name), types.ModuleType)
    assert set(metarec_jax.__all__) <= set(dir(metarec_jax))
    assert metarec_jax.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="nonsense"):
        _ = metarec_jax.nonsense
