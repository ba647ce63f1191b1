"""The script of `make test-lowest` leaves out no command and no extra of users, and finds a bound that is too low."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import lowest
import pytest

from metarec_jax.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
FOR_DEVELOPERS = {"test", "bench", "docs"}


def test_every_command_is_run():
    script = Path(lowest.__file__).read_text(encoding="utf-8")
    named = set(re.findall(r'metarec\("(\w+)"|background\([^()]*?, "(\w+)"', script))
    assert set(COMMANDS) - {"demo"} <= {name for pair in named for name in pair}
    assert "run_demo(" in lowest.DEMO  # with synthetic data, in place of MovieLens-100K


def test_every_extra_of_users_is_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (installed,) = re.findall(r"^EXTRAS := (.*)$", makefile, flags=re.MULTILINE)
    assert set(installed.split()) == set(extras) - FOR_DEVELOPERS


def test_versions_above_their_bounds_are_named():
    """Here the locked versions are installed, which are not the lowest."""
    with pytest.raises(SystemExit) as error:
        lowest.check_bounds(())
    version = importlib.metadata.version("orbax-checkpoint")
    assert f"the lowest version that can be installed is {version}" in str(error.value)
