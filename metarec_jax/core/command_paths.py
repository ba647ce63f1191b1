"""Paths as they are shown in messages and in commands to type."""

from __future__ import annotations

import shlex
from pathlib import Path


def relative(path: Path) -> Path:
    """A path relative to the current folder where it lies below it, and absolute elsewhere."""
    here = Path.cwd()
    if path.is_absolute() and path.is_relative_to(here) and here != Path(here.anchor):
        return path.relative_to(here)
    return path


def path_argument(path: str | Path) -> str:
    """A path as a word of a command line: relative where it lies below the current folder, quoted where need be.

    >>> path_argument("/runs/my run"), path_argument(Path.cwd() / "runs" / "a")
    ("'/runs/my run'", 'runs/a')
    """
    text = str(relative(Path(path)))
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
