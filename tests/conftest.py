"""How every test runs: on the CPU, which stands for eight devices, with shapes and types checked.

There is no compilation cache on disk: a fresh clone would not profit from one, and two test processes that write and
read it at once would.
"""

import jax
import pytest
from jaxtyping import install_import_hook

# Before the first array: the number of devices is fixed when JAX looks for them. Only tests of sharding use more
# than the first.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

# Before the package is imported: every annotated function of it checks its arguments and results.
install_import_hook("metarec_jax", "typechecking.check")

pytest.register_assert_rewrite("helpers")


@pytest.fixture
def x64():
    """Double precision, for this test alone."""
    with jax.enable_x64(True):
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
