"""Imports of packages that an extra of this package installs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from metarec_jax.core.errors import MetarecError


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import within the block into an error that names the extra to install.

    Raises:
        MetarecError: a package is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise MetarecError(
            f"{error.name} is not installed; it comes with the extra {extra}: pip install 'metarec_jax[{extra}]'"
        ) from error
