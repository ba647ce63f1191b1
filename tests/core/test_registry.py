"""Registries list names without imports, import a kind when it is asked for, and refuse a name that is taken."""

import subprocess
import sys

import pytest

from metarec_jax.core import kinds
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.registry import Registry, choices_of, name_of

BUILT_IN = """
from registry_under_test import REGISTRY

@REGISTRY.register("mine")
def mine():
    return 1

REGISTRY.register("mine too")(2)
"""


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry with two built-in kinds of one module, which is not imported yet."""
    found = Registry("part.kind", {"mine": "built_in_under_test", "mine too": "built_in_under_test"})
    (tmp_path / "built_in_under_test.py").write_text(BUILT_IN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "registry_under_test", type(sys)("registry_under_test"))
    sys.modules["registry_under_test"].REGISTRY = found
    yield found
    sys.modules.pop("built_in_under_test", None)


def test_names_are_listed_without_an_import_and_got_with_one(registry):
    assert registry.names() == ("mine", "mine too")
    assert "built_in_under_test" not in sys.modules
    assert registry.get("mine")() == 1
    assert registry.get("mine too") == 2
    assert registry.names() == ("mine", "mine too")


def test_a_kind_from_outside_is_listed_after_the_others(registry):
    @registry.register("theirs")
    def theirs():
        return 3

    assert theirs() == 3, "a decorated function stays what it is"
    assert registry.names() == ("mine", "mine too", "theirs")
    assert registry.get("theirs") is theirs


@pytest.mark.parametrize("name", ["mine", "theirs"])
def test_a_name_that_is_taken_is_refused(registry, name):
    """Also the name of a built-in kind that is not imported yet."""
    registry.register("theirs")(3)
    with pytest.raises(MetarecError, match=rf"part\.kind '{name}' is registered already: choose another name"):
        registry.register(name)(4)
    assert registry.get("theirs") == 3
    assert registry.get("mine")() == 1


def test_an_unknown_name_is_refused_with_those_there_are_and_the_nearest(registry):
    with pytest.raises(MetarecError) as caught:
        registry.get("mime")
    assert str(caught.value) == "part.kind is 'mime'; it must be one of 'mine', 'mine too'; did you mean 'mine'?"
    with pytest.raises(MetarecError, match=r"it must be one of 'mine', 'mine too'$"):
        registry.get("xyz")


def test_the_type_of_a_name_lists_what_is_registered_at_that_time(registry):
    hint = name_of(registry)
    assert choices_of(hint) == ("mine", "mine too")
    registry.register("theirs")(3)
    assert choices_of(hint) == ("mine", "mine too", "theirs")
    assert choices_of(str) == ()


@pytest.mark.parametrize(
    "registry", [r for r in vars(kinds).values() if isinstance(r, Registry)], ids=lambda r: r.option
)
def test_every_built_in_kind_is_registered_by_its_module(registry):
    assert registry.names()
    for name in registry.names():
        registry.get(name)


def test_the_names_of_the_package_are_listed_without_importing_a_kind():
    program = (
        "import sys; from metarec_jax.config.run import Config; from metarec_jax.core.kinds import SOURCES, SPLITS;"
        "SOURCES.names(), SPLITS.names(); print([m for m in sys.modules if m.startswith('metarec_jax.data')])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
