"""Memory that a fit of item factors needs, estimated from its sizes before it begins."""

from __future__ import annotations

from typing import NamedTuple

from jax.sharding import Mesh

from metarec_jax.core.device_memory import free_memory, machine_memory
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import Reporter
from metarec_jax.factors.row_batches import KINDS, MOST_OWNERS
from metarec_jax.factors.row_products import AXIS
from metarec_jax.factors.sorted_rows import IN_FILES

_OF_ROW = 40
"""Bytes of a row on the host while rows are in memory: in both groupings with their padding, and while it is sorted."""
_OF_FILE_ROW = 4
"""Bytes of a row on the host while rows are in files: a mask, and what is sorted at a time."""
_ON_DISK = 32
"""Bytes of a row in temporary files: in both groupings, and while it is sorted."""
_OF_PROGRAMS = 500_000_000
"""Bytes of the compiled programs and of one batch."""
_FLOAT, _DOUBLE = 4, 8


class Sizes(NamedTuple):
    """Sizes of a fit.

    Attributes:
        rows, users, items: numbers of ratings, users and items.
        features: numbers of an item that are known of it.
        columns: columns of an item, free factors included.
        folds: folds whose tables are kept.
    """

    rows: int
    users: int
    items: int
    features: int
    columns: int
    folds: int


class Need(NamedTuple):
    """Estimated bytes.

    Attributes:
        host: of the machine's memory; on a CPU with what devices need.
        device: of each device.
        disk: of temporary files.
    """

    host: int
    device: int
    disk: int = 0


def need(sizes: Sizes, devices: int, *, on_host: bool) -> Need:
    """Estimate the memory of a fit.

    Args:
        sizes: sizes of the fit.
        devices: devices that share the tables.
        on_host: whether the devices use the machine's memory, as CPUs do.

    Returns:
        The estimate.
    """
    users, items = (max(number, 1) for number in (sizes.users, sizes.items))
    width = sizes.columns + 2
    # Two versions of each table while a sweep replaces it, rows counted by kind, and features and known columns.
    tables = (users + items) * (2 * width + KINDS) + items * (sizes.features + width)
    sums = 2 * devices * (MOST_OWNERS + 1) * width**2
    device = _FLOAT * (-(-tables // devices) + sums // devices)
    kept = _FLOAT * items * width * (sizes.folds + 1)
    prepared = _DOUBLE * (items * (3 * sizes.features + 2 * width) + (users + items) * KINDS)
    in_files = sizes.rows >= IN_FILES
    of_rows = sizes.rows * (_OF_FILE_ROW if in_files else _OF_ROW)
    host = of_rows + kept + prepared + _OF_PROGRAMS + (device * devices if on_host else 0)
    return Need(host, device, sizes.rows * _ON_DISK if in_files else 0)


def announce(sizes: Sizes, mesh: Mesh, reporter: Reporter) -> None:
    """Say how much memory a fit needs, before it begins.

    Args:
        sizes: sizes of the fit.
        mesh: mesh with the axis `AXIS`.
        reporter: told the estimate.

    Raises:
        MetarecError: the machine or a device does not have the memory.
    """
    devices, device = mesh.shape[AXIS], mesh.local_devices[0]
    on_host = device.platform == "cpu"
    found = need(sizes, devices, on_host=on_host)
    what = f"item factors of {sizes.rows:,} ratings, {sizes.users:,} users and {sizes.items:,} items"
    on = f"on {devices} {device.platform} devices" if devices > 1 else f"on one {device.platform} device"
    own = "" if on_host else f", and {found.device / 1e9:.1f} GB of each device"
    files = f", and {found.disk / 1e9:.1f} GB of temporary files" if found.disk else ""
    reporter.note(f"{what} {on}: about {found.host / 1e9:.1f} GB of memory{own}{files}")
    for need_, there, where in (
        (found.host, machine_memory(), "this machine has"),
        (0 if on_host else found.device, free_memory(device), f"a {device.platform} device has free"),
    ):
        if need_ > there:
            raise MetarecError(
                f"{what} need about {need_ / 1e9:.1f} GB, and {where} {there / 1e9:.1f} GB: lower --factors.rank "
                "(0 fits no factors), use fewer ratings (--episodes.max-ratings), or a machine with more "
                "memory or devices"
            )
