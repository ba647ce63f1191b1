"""The page works under a path of a proxy: all that it loads and asks for is looked up beside its own files."""

from __future__ import annotations

import re
import urllib.parse
import urllib.request

from live_service import live
from prefix_proxy import proxied
from trained import fresh

from metarec_jax.serving.app import PAGE

LOADED = re.compile(r"""(?:from |src=|href=)["']([^"'#]+)["']""")
ASKED = re.compile(r"""ask\(["'`]([^"'`$?]+)""")


def named(pattern: re.Pattern) -> set[tuple[str, str]]:
    """Files of the page, and the addresses in each."""
    return {(file.name, address) for file in PAGE.iterdir() for address in pattern.findall(file.read_text("utf-8"))}


def test_the_page_and_all_that_it_names_is_under_the_prefix(recommender, tmp_path):
    loaded, asked = named(LOADED), named(ASKED)
    assert {("index.html", "main.js"), ("main.js", "./service.js")} <= loaded
    assert {("main.js", "./recommend"), ("main.js", "./items"), ("session.js", "./feedback")} <= asked
    with live(fresh(recommender), tmp_path) as service, proxied(service.port) as proxy:
        top = f"http://127.0.0.1:{proxy.server_port}/rec/"
        for file, address in {("", ""), *loaded}:
            with urllib.request.urlopen(urllib.parse.urljoin(top + file, address), timeout=60) as answer:
                assert answer.status == 200
        routes = {path.split("/")[1] for path in service.get("/openapi.json").json["paths"]}
    assert all(path.startswith("/rec/") for path in proxy.asked)
    for file, address in asked:
        path = urllib.parse.urljoin("/rec/" + file, address)
        assert path.startswith("/rec/"), (file, address)
        assert path.split("/")[2] in routes, (file, address)
