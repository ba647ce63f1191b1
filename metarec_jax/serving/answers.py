"""Answers as JSON, in which every number is finite and every text can be encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse


class Answer(JSONResponse):
    """A JSON answer. NaN and infinities, which JSON does not have, are null; lone surrogates are question marks."""

    def render(self, content: Any) -> bytes:
        """Return the bytes of the body."""
        try:
            return super().render(content)
        except ValueError:  # rare, so that most answers are not walked through twice
            return super().render(_sendable(content))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_sendable(name): _sendable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_sendable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
