"""Search for a published data set if no path is given: in the cache folder, installed packages, and at its publisher.

MovieLens may be used for research but not redistributed, so this package comes with no copy of it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metarec_jax.config.data import DataConfig
from metarec_jax.core.errors import MetarecError


class Package(NamedTuple):
    """A Python package that contains a data set.

    Attributes:
        name: name by which it is imported and installed.
        version: version to which `files` refers.
        folder: folder of the data set in the package.
        files: sha256 of each file, by its name.
    """

    name: str
    version: str
    folder: str
    files: Mapping[str, str]

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install --no-deps {self.name}=={self.version}"

    @property
    def installed(self) -> str:
        """The version that is installed."""
        try:
            return importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            return "of unknown version"

    def find(self) -> Path | None:
        """The folder of the data set if the package is installed; the package is not imported, as it may need torch."""
        try:
            spec = importlib.util.find_spec(self.name)
        except (ImportError, ValueError):
            return None
        for location in (spec.submodule_search_locations if spec else None) or ():
            if (Path(location) / self.folder / next(iter(self.files))).is_file():
                return Path(location) / self.folder
        return None


class Release(NamedTuple):
    """A data set as it is published: a zip.

    Attributes:
        url: url of the zip.
        stems: names of its folder or zip in the cache folder; a download gets the first one.
        md5: published md5 of the zip; "" for a release that changes.
        package: a Python package that contains it, too.
    """

    url: str
    stems: tuple[str, ...]
    md5: str = ""
    package: Package | None = None


class Place(NamedTuple):
    """One place where data can be.

    Attributes:
        what: the kind of place.
        where: its path or address.
        found: whether the data is there; always False for the publisher, which is not queried.
        note: further information, or "".
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
    if not base.is_absolute():
        try:
            base = Path("~/.cache").expanduser()
        except RuntimeError:  # no $HOME, and a user that the system does not know, as in some containers
            base = Path(tempfile.gettempdir()) / f"metarec_jax-{os.getuid()}"
    return base / "metarec_jax"


def places(release: Release, config: DataConfig) -> list[Place]:
    """The places where `find` searches, in order; nothing is read or downloaded.

    Args:
        release: the data set.
        config: ``cache`` and ``download`` are read.

    Returns:
        The places.
    """
    cached = _cached(release, config)
    target = cached or cache_folder(config.cache) / f"{release.stems[0]}.zip"
    looked = [Place("cache folder", str(target), cached is not None)]
    if release.package:
        folder = release.package.find()
        note = f"version {release.package.installed}" if folder else f"{release.package.install} installs it"
        looked.append(Place(f"installed package {release.package.name}", str(folder or ""), folder is not None, note))
    note = "asked when nothing else is found" if config.download else "switched off by data.download"
    return [*looked, Place("publisher", release.url, False, note)]


def find(release: Release, title: str, config: DataConfig) -> Found:
    """Find a published data set in the first place that has it.

    Args:
        release: the data set.
        title: title of the data set, for messages.
        config: ``cache`` and ``download`` are read.

    Returns:
        The path of its folder or zip, and a sentence that describes where it was found.

    Raises:
        MetarecError: no place has the data set, or the copy that was found is damaged.
    """
    cached = _cached(release, config)
    if cached:
        if cached.name == f"{release.stems[0]}.zip" and release.md5 and _digest(cached, "md5") != release.md5:
            raise MetarecError(
                f"{cached}: its md5 is {_digest(cached, 'md5')}, but that of {title} is {release.md5}: remove it, so "
                f"that it is downloaded again, or read it as it is with --data.path {cached}"
            )
        return Found(cached, f"{title} from the cache folder ({cached})")
    package = release.package
    folder = package.find() if package else None
    if package and folder:
        _verify(package, folder)
        return Found(folder, f"{title} from the installed package {package.name} {package.installed} ({folder})")
    failure = f"{release.url} (not asked: data.download is off)"
    if config.download:
        target = cache_folder(config.cache) / f"{release.stems[0]}.zip"
        try:
            download(release.url, target, md5=release.md5)
            return Found(target, f"{title} from its publisher ({release.url}, kept as {target})")
        except MetarecError as error:
            failure = str(error)
    looked = [f"  {place.what}: {place.where or 'not there'}" for place in places(release, config)[:-1]]
    remedies = [f"{package.install} installs it"] if package else []
    remedies.append(f"--data.path FOLDER (or ZIP), if you have {title}")
    if not config.download:
        remedies.append("--data.download, which asks the publisher")
    raise MetarecError(
        "\n".join([f"{title} was not found. Looked at:", *looked, f"  publisher: {failure}"])
        + f"\nRemedies: {'; '.join(remedies)}."
    )


def download(url: str, target: Path, *, md5: str = "") -> None:
    """Download a zip to `target`, which is written only once the zip is complete and has its checksum.

    Args:
        url: url of the zip.
        target: path of the downloaded file; its folder is made.
        md5: md5 of the zip, in hexadecimal; "" checks only the zip's own checksums.

    Raises:
        MetarecError: no connection, no space on the disk, an incomplete download, or unexpected content. No partial
            file is left, and an existing file at `target` is unchanged.
    """
    import pooch  # slow to import, and rarely needed

    def complete_zip(url: str, output: str, cache: Any) -> None:
        pooch.HTTPDownloader()(url, output, cache)
        with zipfile.ZipFile(output) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} in it is damaged")
        os.chmod(output, 0o644)  # pooch makes it as a temporary file, which only its owner may read

    pooch.get_logger().setLevel("WARNING")  # the data's `source` states the origin
    try:
        pooch.retrieve(
            url,
            known_hash=f"md5:{md5}" if md5 else None,
            fname=target.name,
            path=target.parent,
            downloader=complete_zip,  # type: ignore[bad-argument-type]  # pooch's type has the arguments' names wrong
        )
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:  # errors of `requests` are OSErrors
        raise MetarecError(f"{url}: not downloaded to {target} ({error}): try again") from error


def _cached(release: Release, config: DataConfig) -> Path | None:
    folder = cache_folder(config.cache)
    for stem in release.stems:
        if (folder / stem).is_dir():
            return folder / stem
        if (folder / f"{stem}.zip").is_file():
            return folder / f"{stem}.zip"
    return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _verify(package: Package, folder: Path) -> None:
    """Refuse files of an installed package that are missing, or are not those of its version."""
    reinstall = package.install.replace("install", "install --force-reinstall", 1)
    for name, expected in package.files.items():
        try:
            found = _digest(folder / name, "sha256")
        except OSError as error:
            raise MetarecError(
                f"{folder / name}: cannot be read ({error.strerror}): reinstall it with {reinstall}"
            ) from error
        if found != expected:
            raise MetarecError(
                f"{folder / name}: its sha256 is {found}, but in {package.name} {package.version} it is {expected}: "
                f"reinstall it with {reinstall}, or read it as it is with --data.path {folder}"
            )
