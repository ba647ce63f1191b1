"""A function is traced once for a folder, and kept programs give what traced ones do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import metarec_jax
from metarec_jax.core.exported_programs import Traced

PACKAGE = Path(metarec_jax.__file__).parent
TWICE = """
import functools, sys
import jax, numpy as np
from metarec_jax.core.exported_programs import Traced

jax.config.update("jax_compilation_cache_dir", sys.argv[1])


def scaled(by, tree, *, often):
    print("traced")
    for _ in range(often):
        tree = {"a": tree["a"] @ tree["b"], "b": by * tree["b"]}
    return tree, None


program = Traced(functools.partial(scaled, float(sys.argv[2])), sys.argv[2], ["often"])
tree = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.eye(3, dtype=np.float32)}
for often in (1, 2, 2):
    found, nothing = program(tree, often=often)
    print(nothing, sorted(found), found["a"].tolist(), found["b"][0, 0])
"""


def ran(folder, by: str, *, package: Path = PACKAGE) -> tuple[int, list[str]]:
    """How often a process of its own traced, with a package elsewhere perhaps, and what else it printed."""
    command = [sys.executable, "-c", TWICE, str(folder), by]  # which imports from its working directory first
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=package.parent)
    lines = done.stdout.splitlines()
    return lines.count("traced"), [line for line in lines if line != "traced"]


def test_a_second_process_traces_nothing(tmp_path):
    first, wanted = ran(tmp_path, "2")
    assert first == 2  # one for each value of a static argument
    assert ran(tmp_path, "2") == (0, wanted)
    other, found = ran(tmp_path, "3")  # a function that follows from something else
    assert other == 2
    assert found != wanted


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(b"", marks=pytest.mark.slow),
        pytest.param(b"no program", marks=pytest.mark.slow),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
)
def test_a_damaged_file_is_written_anew(tmp_path, damage):
    _, wanted = ran(tmp_path, "2")
    files = sorted((tmp_path / "traced").iterdir())
    whole = [file.read_bytes() for file in files]
    for file, data in zip(files, whole):
        file.write_bytes(damage(data) if callable(damage) else damage)
    assert ran(tmp_path, "2") == (2, wanted)
    assert ran(tmp_path, "2") == (0, wanted)


def test_other_sources_are_other_programs(tmp_path):
    """What is kept goes by the package as it lies on disk."""
    package = Path(shutil.copytree(PACKAGE, tmp_path / "other" / PACKAGE.name))
    assert ran(tmp_path, "2", package=package)[0] == 2
    assert ran(tmp_path, "2", package=package)[0] == 0
    (package / "more.py").write_text("")
    assert ran(tmp_path, "2", package=package)[0] == 2


@pytest.fixture
def kept(tmp_path):
    """A folder for traced programs; JAX's own cache, which lies beside it, is given nothing."""
    values = {"jax_compilation_cache_dir": str(tmp_path), "jax_persistent_cache_min_compile_time_secs": 1e9}
    before = {name: jax.config.values[name] for name in values}
    for name, value in values.items():
        jax.config.update(name, value)
    yield tmp_path / "traced"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_without_a_folder_nothing_is_kept():
    assert not jax.config.values["jax_compilation_cache_dir"]
    np.testing.assert_array_equal(Traced(jnp.sin, "")(np.zeros(2, np.float32)), [0, 0])


def test_where_nothing_can_be_written_it_is_traced(kept):
    kept.write_text("a file in the way")
    np.testing.assert_array_equal(Traced(jnp.cos, "")(np.zeros(2, np.float32)), [1, 1])


def test_numbers_have_the_types_that_they_would_have(kept):
    def function(whole, number, wide):
        return whole + number, wide

    values = (np.int32(3), 2.5, np.arange(2.0))
    wanted = jax.jit(function)(*values)
    for _ in range(2):  # traced, and read
        found = Traced(function, "")(*values)
        assert [(leaf.dtype, leaf.shape) for leaf in found] == [(leaf.dtype, leaf.shape) for leaf in wanted]
        np.testing.assert_array_equal(found[1], wanted[1])
    assert len(list(kept.iterdir())) == 1


def test_another_precision_is_another_program(kept):
    program, wide = Traced(lambda values: values + 1, ""), np.arange(2.0)
    assert program(wide).dtype == np.float32
    with jax.enable_x64(True):
        assert program(wide).dtype == np.float64
    assert program(wide).dtype == np.float32
    assert len(list(kept.iterdir())) == 2


def test_what_a_function_raises_comes_through(kept):
    def refuse(value):
        raise ValueError("no such value")

    with pytest.raises(ValueError, match="no such value"):
        Traced(refuse, "")(np.zeros(1, np.float32))


def test_shapes_can_be_asked_for(kept):
    program = Traced(lambda rows: rows.sum(0), "")
    assert jax.eval_shape(program, jax.ShapeDtypeStruct((3, 2), jnp.float32)).shape == (2,)
