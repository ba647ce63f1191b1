"""Deferred import of transformers, which takes a second or more."""

from __future__ import annotations

import os
from typing import Any


def import_transformers() -> Any:
    """Import the module transformers, and suppress its advice on a missing PyTorch, which is not needed here."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return transformers
