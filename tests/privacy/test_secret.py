"""The secret of a private training: whole, its owner's alone, and said to be there as long as it is."""

import stat

import pytest

from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.privacy import accounting
from metarec_jax.train.run_folder import Run


def test_the_secret_is_its_owners_stays_the_same_and_goes_with_the_end(tmp_path):
    run = Run(tmp_path, Config())
    assert accounting.unfinished(run) == ""
    found = accounting.secret(run)
    path = accounting.secret_file(run)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert accounting.secret(run) == found
    assert len(set(found)) == 8
    said = accounting.unfinished(run)
    assert str(path) in said
    assert "metarec train --resume" in said
    accounting.forget(run)
    accounting.forget(run)
    assert accounting.unfinished(run) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[1, 2", "[1, 2]", '{"a": 1}', "[1.5, 2, 3, 4, 5, 6, 7, 8]"])
def test_a_damaged_secret_is_refused(tmp_path, text):
    run = Run(tmp_path, Config())
    accounting.secret_file(run).write_text(text)
    with pytest.raises(MetarecError, match=r"secret\.json.*train a new run"):
        accounting.secret(run)
