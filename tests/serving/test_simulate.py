"""The client of `metarec simulate`: what it does where no service answers, or refuses."""

import contextlib

import pytest

from metarec_jax.core.errors import MetarecError
from metarec_jax.serving.server import listen
from metarec_jax.serving.simulate import Client


@pytest.mark.parametrize("address", ["ftp://x", "http://", "http:///x", "http://[::1", "127.0.0.1:8765", ""])
def test_an_address_that_is_not_http_is_refused(address):
    with pytest.raises(MetarecError, match=r"is no address of a service: write one such as http://127\.0\.0\.1:8765/"):
        Client(address)


def test_a_service_that_does_not_answer_is_named():
    with contextlib.closing(listen("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    message = rf"http://127\.0\.0\.1:{port}/: no service answers .*metarec serve"
    with contextlib.closing(Client(f"http://127.0.0.1:{port}/")) as client, pytest.raises(MetarecError, match=message):
        client.ask("/about")
