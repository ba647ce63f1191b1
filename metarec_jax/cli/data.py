"""`metarec data build`: write a data set as a row store."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metarec_jax.cli.arguments import Json, parse, print_json
from metarec_jax.config.data import DataConfig
from metarec_jax.core.command_paths import path_argument
from metarec_jax.core.console import make_reporter
from metarec_jax.core.errors import MetarecError, shown


@dataclasses.dataclass(frozen=True)
class BuildArguments:
    """Write a data set as a row store: a folder of files that are sorted by user and mapped into memory.

    It takes little memory, however many rows there are. `--data.path OUT` reads the store with every command.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE", help="As --data.path.")]
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT", help="New folder of the store.")]
    json: Json = False
    data: DataConfig = dataclasses.field(default_factory=DataConfig)


def run(arguments: Sequence[str]) -> int:
    """Run `metarec data` and return the exit status."""
    if not arguments:
        raise MetarecError("metarec data: say what to do: metarec data build SOURCE OUT")
    action, *rest = arguments
    if action in ("-h", "--help"):
        print("usage: metarec data build SOURCE OUT [OPTIONS]")
        rest = ["--help"]
    elif action != "build":
        raise MetarecError(f"metarec data {shown(action)} is no action: say metarec data build SOURCE OUT")
    chosen = parse(BuildArguments, "data build", rest)
    if chosen.data.path:
        raise MetarecError(f"SOURCE is {chosen.source} and --data.path {chosen.data.path}: give SOURCE alone")
    from metarec_jax.data.sources.row_store import build_store  # imported here because pyarrow is slow to import

    config, out = dataclasses.replace(chosen.data, path=chosen.source), Path(chosen.out).expanduser()
    data = build_store(config, out, reporter=make_reporter())
    if chosen.json:
        print_json({"store": str(out), "rows": len(data), "users": len(data.users), "items": len(data.items)})
    else:
        print(f"{len(data):,} rows of {len(data.users):,} users and {len(data.items):,} items are in {out}")
        print(f"metarec train --data.path {path_argument(out)}{' --data.kind click' * (data.kind == 'click')}")
    return 0
