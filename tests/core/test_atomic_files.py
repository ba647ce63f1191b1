"""Files are whole or not there, and what the operating system refuses is explained."""

import errno
import os
from pathlib import Path

import pytest

from metarec_jax.core.atomic_files import explained, make_folder, replacing, write_text
from metarec_jax.core.errors import MetarecError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.json"
    with replacing(path) as temporary:
        temporary.write_text("ha")
        assert not path.exists()
        assert temporary.parent.parent == path.parent, "a rename must not cross file systems"
        with temporary.open("a") as file:
            file.write("lf")
    assert path.read_text() == "half"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", ["old", None])
def test_whatever_interrupts_leaves_the_old_file_and_nothing_else(tmp_path, error, before):
    path = tmp_path / "a.json"
    if before is not None:
        path.write_text(before)

    def write():
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == ([] if before is None else ["a.json"])
    assert before is None or path.read_text() == before


def test_a_file_that_was_not_written_is_no_success(tmp_path):
    said = rf"^{tmp_path}/a\.json: cannot be written: No such"
    with pytest.raises(MetarecError, match=said), replacing(tmp_path / "a.json"):
        pass
    assert names(tmp_path) == []


def test_the_file_is_named_as_it_was_asked_for(tmp_path):
    """Not by its temporary name, which says nothing to anyone."""
    with pytest.raises(MetarecError, match=rf"^{tmp_path}/gone/a\.json: cannot be written: No such"):
        write_text(tmp_path / "gone" / "a.json", "text")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(MetarecError, match=rf"^{tmp_path}/folder: cannot be written: "):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, fails):
    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *paths[:1] if fails == "replace" else ())

    path = tmp_path / "a.json"
    write_text(path, "old")
    monkeypatch.setattr(os, fails, full)
    with pytest.raises(MetarecError) as caught:
        write_text(path, "new")
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device: free some space, then run the same command again"
    )
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.json"]


def test_text_is_utf_8_wherever_it_is_written(tmp_path):
    write_text(tmp_path / "a", "Amélie \N{SNOWMAN}\n")
    assert (tmp_path / "a").read_bytes() == "Amélie \N{SNOWMAN}\n".encode()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "No space left on device: free some space, then run the same command again"),
        (errno.EDQUOT, "quota exceeded: free some space, then run the same command again"),
        (errno.EACCES, "no permission to write there: name another folder"),
        (errno.EROFS, "the file system is read-only: name another folder"),
        (errno.ENOTDIR, "a part of the path is a file, not a folder"),
        (errno.EFBIG, "larger than a file may be"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_what_the_system_refuses_is_said_with_a_remedy(number, remedy):
    with pytest.raises(MetarecError) as caught, explained(Path("some/folder")):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith("some/folder: cannot be written: ")
    assert remedy in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_the_file_that_the_system_names_is_named():
    with pytest.raises(MetarecError, match=r"^deeper/file: cannot be written"), explained(Path("folder")):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), "deeper/file")


def test_other_mistakes_pass():
    with pytest.raises(ZeroDivisionError), explained(Path("folder")):
        _ = 1 / 0


def test_a_folder_is_made_with_its_parents_and_left_as_it_is(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    (folder / "file").write_text("kept")
    assert make_folder(folder) == folder
    assert names(folder) == ["file"]


@pytest.mark.parametrize("below", ["", "deeper", "deeper/still"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(MetarecError, match=r"/file.*: cannot be written: a (file of that name|part of the path)"):
        make_folder(tmp_path / "file" / below)


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(tmp_path, monkeypatch):
    """The superuser may write anywhere, so the system's answer is played."""
    import tempfile

    def refuse(*_, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{options['dir']}/tmp")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(MetarecError, match="no permission to write there: name another folder"):
        make_folder(tmp_path / "a")
