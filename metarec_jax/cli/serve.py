"""`metarec serve`: serve a run over HTTP."""

from __future__ import annotations

from collections.abc import Sequence

from metarec_jax.cli.arguments import parse, prepare
from metarec_jax.serving.options import ServeArguments


def run(arguments: Sequence[str]) -> int:
    """Run `metarec serve` and return the exit status."""
    chosen = parse(ServeArguments, "serve", arguments)
    reporter = prepare()
    from metarec_jax.serving import server

    server.serve(chosen, reporter)
    return 0
