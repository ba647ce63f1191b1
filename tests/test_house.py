"""Rules of the house that no tool checks."""

from collections import Counter
from pathlib import Path


def test_no_two_test_files_have_the_same_name():
    """pytest imports them by their name alone: the second of two would fail where both are collected by one process."""
    files = Counter(path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py")
    assert [name for name, many in files.items() if many > 1] == []
