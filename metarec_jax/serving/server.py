"""From a run folder to a service that listens."""

from __future__ import annotations

import importlib
import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

from metarec_jax.cli.options import ServeArguments
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.ab_test import Arm, Exploring, Mode
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.store import Store

TOKEN = "METAREC_TOKEN"
"""The environment variable that holds the token: other users of a machine can read a command line, but not this."""


DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY")
"""One of these is set where Linux has a desktop."""


def serve(chosen: ServeArguments, reporter: Reporter = QUIET) -> None:
    """Serves until a signal comes.

    Raises:
        MetarecError: the extra `serve` is not installed, an option is wrong, or the address is taken.
    """
    uvicorn = _uvicorn()
    token = os.environ.get(TOKEN) or None
    check(chosen, token)
    listening = listen(chosen.host, chosen.port)
    host, port = listening.getsockname()[:2]
    app, programs = build(chosen, token, reporter)
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    reporter.note(f"{programs} programs are compiled")
    print(f"serving {chosen.run} at {address}", flush=True)
    if chosen.open:
        show(address)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=30
    )
    uvicorn.Server(config).run(sockets=[listening])


def build(chosen: ServeArguments, token: str | None, reporter: Reporter = QUIET) -> tuple[Any, int]:
    """The application that the options describe, and how many programs were compiled for it."""
    from metarec_jax.serving.app import make_app
    from metarec_jax.serving.demo_users import people_of

    arms = [Arm("a", Recommender.load(chosen.run))]
    if chosen.against:
        arms.append(Arm("b", Recommender.load(chosen.against)))
    store = Store(Path(chosen.store) if chosen.store else Path(chosen.run) / "service")
    exploring = Exploring(chosen.explore, chosen.pool)
    engine = Engine(arms, store, mode=mode_of(chosen), share=chosen.share, exploring=exploring)
    reporter.note(f"feedback, users and new items are kept in {store.folder}")
    programs = engine.warm(chosen.together)
    people = people_of(engine.first.config) if chosen.people else {}
    app = make_app(
        engine,
        token=token,
        hosts=None if token else frozenset({"127.0.0.1", "localhost", "::1", chosen.host.lower()}),
        people=people,
        wait=chosen.wait_ms / 1000 if chosen.together > 1 else 0.0,
        most=chosen.together,
    )
    return app, programs


def show(address: str) -> None:
    """Opens an address in the desktop's browser; without a desktop it does nothing, so that no browser for terminals
    takes this one."""
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in DESKTOP):
        return
    # Not waited for: the page is there when the server looks, which is after this.
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def mode_of(chosen: ServeArguments) -> Mode:
    """How the models share the users."""
    if chosen.mode == "auto":
        return "ab" if chosen.against else "single"
    return chosen.mode


def check(chosen: ServeArguments, token: str | None) -> None:
    """Refuses options that cannot be, before anything is loaded.

    Raises:
        MetarecError: says which.
    """
    for name, low, high in (("share", 0, 1), ("explore", 0, 1)):
        value = getattr(chosen, name)
        if not low <= value <= high:
            raise MetarecError(f"--{name} is {value:g}; it must lie between {low} and {high}")
    if chosen.pool < 1 or chosen.together < 1 or not 0 <= chosen.wait_ms <= 1000 or not 0 <= chosen.port < 65536:
        raise MetarecError(
            f"--pool is {chosen.pool}, --together {chosen.together}, --wait-ms {chosen.wait_ms:g}, "
            f"--port {chosen.port}: "
            "the first two must be at least 1, the third at most 1000, and the last a port, or 0"
        )
    mode = mode_of(chosen)
    if (mode == "single") == bool(chosen.against):
        remedy = "leave out --against" if chosen.against else "name a second run with --against"
        raise MetarecError(f"--mode {mode} does not fit the number of runs: {remedy}, or choose another mode")
    if mode == "interleave" and chosen.explore:
        raise MetarecError("--explore with --mode interleave: an interleaved list has no known propensities")
    if token is not None and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        raise MetarecError(f"${TOKEN} is no good token: take at least 16 printable ASCII characters")
    if token is None and not loopback(chosen.host):
        raise MetarecError(
            f"--host {chosen.host} can be reached from other machines, so requests must show a token: put one into "
            f"${TOKEN} (python -c 'import secrets; print(secrets.token_urlsafe())' makes one)"
        )


def loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        MetarecError: it cannot.
    """
    found = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)  # who comes before the server looks waits for it
        return found
    except OSError as error:
        if found is not None:
            found.close()
        raise MetarecError(
            f"--host {host} --port {port}: cannot listen there ({error.strerror}): choose another port (0: any)"
        ) from error


def _uvicorn() -> Any:
    """The server, if all that it needs is there."""
    try:
        return [importlib.import_module(name) for name in ("fastapi", "prometheus_client", "uvicorn")][-1]
    except ImportError as error:
        raise MetarecError(
            f"{error.name} is not installed; a service needs the extra serve: pip install 'metarec_jax[serve]'"
        ) from error
