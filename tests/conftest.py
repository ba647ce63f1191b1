"""How every test runs: on the CPU, which stands for eight devices, with shapes and types checked, and with programs
that are quickly compiled, whatever they take to run: most tests compile many small ones, and run each a few times.

What is encoded and compiled is kept for the session, in one cache folder for all test processes and for those that
their tests start.
"""

import gc
import os
import signal
from pathlib import Path

import jax
import pytest
import typechecking
from quick import USUAL, quick_flags

# Before the first array: the number of devices is fixed when JAX looks for them. Only tests of sharding use more
# than the first.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Before the package is imported: every annotated function of it checks its arguments and results.
typechecking.install("metarec_jax")

pytest.register_assert_rewrite("helpers")

# Tracing makes many objects and few cycles of them: a collection of garbage seldom frees anything.
gc.set_threshold(20_000, 20, 20)


# A shell has processes in its background ignore Ctrl-C, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    """Start the long files first, so that no test process is left with one at the end while the other has nothing."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish():
    """Keep modules and tests, which stay until the end, out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


def _compile_quickly() -> None:
    """Has this process take `QUICK` for the defaults of XLA, which reads its flags when it compiles for the first time.
    Processes that tests start compile as those of users do, unless a test gives them `quick_flags`."""
    import metarec_jax  # noqa: F401 - which adds a flag of its own

    own = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = quick_flags()
    jax.jit(lambda x: x)(0).block_until_ready()
    os.environ["XLA_FLAGS"] = own


_compile_quickly()


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_session(tmp_path_factory):
    """One cache folder for all tests of the session and the commands that they run. Tests of caching set their own."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAREC_CACHE", str(shared / "cache-of-the-session"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_kept():
    """Commands that run in this process would have it keep compiled and traced programs from then on."""
    from metarec_jax.core import compile_cache

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compile_cache, "keep_compilations", lambda cache: None)
        yield


@pytest.fixture
def as_users_compile(monkeypatch):
    """Programs that are compiled ahead of time are those of users, and take as long to compile."""
    compile_ = jax.stages.Lowered.compile

    def compiled(self, compiler_options=None):
        return compile_(self, {**USUAL, **(compiler_options or {})})

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)


@pytest.fixture
def x64():
    """Double precision, for this test alone."""
    with jax.enable_x64(True):
        yield


PURE_ROOMS = {"core", "config", "data", "metrics", "factors", "learner", "meta", "encoder"}
"""Rooms whose functions are held to explicit broadcasting. Elsewhere tests call code of others, such as rivals."""


@pytest.fixture(autouse=True)
def _explicit_broadcasting(request):
    """Raise if arrays of unequal rank are combined, in tests of the pure rooms."""
    parts = request.path.relative_to(request.config.rootpath).parts
    pure = parts[0] == "tests" and parts[1] in PURE_ROOMS
    with jax.numpy_rank_promotion("raise" if pure else "allow"):
        yield


@pytest.fixture
def strict_dtypes():
    """Arrays of different dtypes are never combined, for this test alone."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def compilations():
    """A list that grows by one name for every program that XLA compiles while the test runs."""
    names = []

    def heard(event: str, duration: float, **more) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(more.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield names
    jax.monitoring.unregister_event_duration_listener(heard)


MOST_BYTES, GROWN_BYTES = 1_800_000_000, 300_000_000
"""Resident memory of a test process above which compiled programs are dropped when a test ends, and by how much it must
have grown since they were dropped before: what does not go with them is not worth compiling them again for."""
_left_bytes = 0


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def _bounded_memory():
    """Keep a test process small: most programs that a test compiles no other one runs."""
    from metarec_jax.core.device_memory import return_freed_memory

    global _left_bytes
    yield
    if Path("/proc/self/statm").exists() and _resident_bytes() > max(MOST_BYTES, _left_bytes + GROWN_BYTES):
        jax.clear_caches()
        gc.collect()
        return_freed_memory()
        _left_bytes = _resident_bytes()


@pytest.fixture(scope="session")
def recommender():
    """The model of `trained_run`. Tests that change it take a `fresh` copy."""
    from trained import trained_run

    from metarec_jax.recommender.recommender import Recommender

    return Recommender.load(trained_run())


@pytest.fixture(scope="module")
def believer():
    """The model of `believing_run`, which has item factors. Tests that change it take a `fresh` copy."""
    from trained import believing_run

    from metarec_jax.recommender.recommender import Recommender

    return Recommender.load(believing_run())
