"""`metarec export`: write a run as a folder for recommendation on a user's device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from metarec_jax.cli.arguments import Folder, Json, TrainedRun, parse, place, prepare, print_json
from metarec_jax.core.command_paths import path_argument, relative


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Write a run as a folder for adaptation and recommendation on a user's device (docs/privacy.md).

    examples/on_device.py reads it with only JAX and NumPy.
    """

    run: TrainedRun
    out: Folder
    """New folder."""
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec export` and return the exit status."""
    chosen = parse(ExportArguments, "export", arguments)
    reporter = prepare()
    from metarec_jax.recommender.export import export_folder
    from metarec_jax.recommender.recommender import Recommender

    folder = export_folder(Recommender.load(place(chosen.run), report=reporter.note), place(chosen.out))
    size = sum(path.stat().st_size for path in folder.iterdir())
    if chosen.json:
        print_json({"run": chosen.run, "folder": str(relative(folder)), "bytes": size})
    else:
        print(
            f"folder: {path_argument(folder)} ({size / 1e6:.1f} MB)\n"
            f'next: python examples/on_device.py {path_argument(folder)} --rate "TITLE=RATING"'
        )
    return 0
