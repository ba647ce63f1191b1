"""`metarec serve`: load the runs, check the options, and listen."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import os
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.extras import needs_extra
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.ab_test import Arm, Exploring, Mode
from metarec_jax.serving.demo_users import people_of
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.options import ServeArguments
from metarec_jax.serving.store import Store

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from metarec_jax.serving.protocol import LimitedProtocol

TOKEN = "METAREC_TOKEN"
"""Environment variable of the token. Other users of the machine can read a command line, but not this."""
MIN_TOKEN = 16
"""Characters of the shortest token."""
DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY")
"""Linux sets one of these variables in a desktop session."""
CLOCK_SECONDS = 60
"""Seconds that the clock may be behind the store without a note."""
RANGES = {
    "share": (0, 1),
    "explore": (0, 1),
    "pool": (1, 1_000_000),
    "together": (1, 4096),
    "wait_ms": (0, 1000),
    "port": (0, 65535),
}
"""Minimum and maximum of options."""


def serve(chosen: ServeArguments, reporter: Reporter = QUIET) -> None:
    """Serve until a signal ends the process.

    Args:
        chosen: the options.
        reporter: receives notes.

    Raises:
        MetarecError: the extra `serve` is not installed, an option is wrong, or the address is in use.
    """
    with needs_extra("serve"):
        import uvicorn

        from metarec_jax.serving.app import make_app
    token = os.environ.get(TOKEN) or None
    chosen = dataclasses.replace(chosen, host=chosen.host.strip("[]"))  # as IPv6 is written in addresses
    check(chosen, token)
    with contextlib.closing(listen(chosen.host, chosen.port)) as listening:
        host, port = listening.getsockname()[:2]
        engine = load_engine(chosen, reporter)
        reporter.note(f"{engine.warm(chosen.together)} programs are compiled")
        app = make_app(
            engine,
            token=token,
            hosts=None if token else frozenset({"127.0.0.1", "localhost", "::1", str(host), chosen.host.lower()}),
            people=people_of(engine.first.config) if chosen.people else {},
            wait=chosen.wait_ms / 1000 if chosen.together > 1 else 0.0,
            max_batch=chosen.together,
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        print(f"serving {chosen.run} at {address}", flush=True)
        if chosen.open:
            open_browser(address)
        uvicorn.Server(uvicorn_config(app)).run(sockets=[listening])


def uvicorn_config(app: FastAPI, protocol: type[LimitedProtocol] | None = None) -> uvicorn.Config:
    """Return how uvicorn serves an application: without logs of requests, and with limits on connections.

    Args:
        app: the application.
        protocol: class of connections; None takes `LimitedProtocol`.

    Returns:
        The config of uvicorn.
    """
    import uvicorn

    from metarec_jax.serving import protocol as protocols

    return uvicorn.Config(
        app,
        http=protocol or protocols.LimitedProtocol,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
    )


def load_engine(chosen: ServeArguments, reporter: Reporter = QUIET) -> Engine:
    """Load the engine of the runs that are served, with its store.

    Args:
        chosen: the options.
        reporter: receives a note that names the store's folder.

    Returns:
        The engine.

    Raises:
        MetarecError: a run or the store cannot be read, or the runs do not fit each other.
    """
    arms = [Arm("a", Recommender.load(chosen.run))]
    if chosen.against:
        arms.append(Arm("b", Recommender.load(chosen.against)))
    store = Store(Path(chosen.store) if chosen.store else Path(chosen.run) / "service")
    reporter.note(f"feedback, users and new items are kept in {store.folder}")
    if store.latest > time.time() + CLOCK_SECONDS:
        latest = datetime.datetime.fromtimestamp(store.latest, datetime.UTC).isoformat(timespec="seconds")
        reporter.note(f"the clock is behind the store: until {latest}, times in it do not follow the clock")
    exploring = Exploring(chosen.explore, chosen.pool)
    try:
        return Engine(arms, store, mode=mode_of(chosen), share=chosen.share, exploring=exploring)
    except BaseException:
        store.close()
        raise


def open_browser(address: str) -> None:
    """Open an address in the desktop's browser; without a desktop do nothing, so that no text browser is started."""
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in DESKTOP):
        return
    # In a thread: the server, which answers the browser, starts after this.
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def mode_of(chosen: ServeArguments) -> Mode:
    """Return how the models share the users."""
    if chosen.mode == "auto":
        return "ab" if chosen.against else "single"
    return chosen.mode


def check(chosen: ServeArguments, token: str | None) -> None:
    """Check the options before anything is loaded.

    Args:
        chosen: the options.
        token: the token that requests must send; None serves every request.

    Raises:
        MetarecError: an option is out of range, or options contradict each other.
    """
    for name, (low, high) in RANGES.items():
        value = getattr(chosen, name)
        if not low <= value <= high:
            raise MetarecError(f"--{name.replace('_', '-')} is {value:.15g}; it must lie between {low} and {high}")
    mode = mode_of(chosen)
    if (mode == "single") == bool(chosen.against):
        remedy = "leave out --against" if chosen.against else "name a second run with --against"
        raise MetarecError(f"--mode {mode} does not fit the number of runs: {remedy}, or choose another mode")
    if mode == "interleave" and chosen.explore:
        raise MetarecError(
            "--explore with --mode interleave: an interleaved list has no known propensities: leave out one of them"
        )
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise MetarecError(f"${TOKEN}: a token has at least {MIN_TOKEN} characters, all of them printable ASCII")
    if token is None and not loopback(chosen.host):
        raise MetarecError(
            f"--host {chosen.host} can be reached from other machines, so requests must show a token: put one into "
            f"${TOKEN} (python -c 'import secrets; print(secrets.token_urlsafe())' makes one)"
        )


def loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Args:
        host: name or address.
        port: 0 takes a free one.

    Returns:
        The socket.

    Raises:
        MetarecError: the address is in use, or not one of this machine.
    """
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)  # connections that arrive before the server starts wait in this queue
        return found
    except OSError as error:
        if found is not None:
            found.close()
        raise MetarecError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}): choose another port (0: any)"
        ) from error
