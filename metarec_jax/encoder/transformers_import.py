"""Import of transformers, where a text or a checkpoint is read and nowhere else: it takes a second or more."""

from __future__ import annotations

import os
from typing import Any


def import_transformers() -> Any:
    """The module transformers, imported without its advice on a missing PyTorch, which is not needed here."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return transformers
