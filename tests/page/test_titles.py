"""Titles on the page: blank, very long, and with markup or codes of terminals in them."""

from __future__ import annotations

import dataclasses

import pytest
from live_service import live

from metarec_jax.recommender.recommender import Recommender

pytestmark = pytest.mark.browser

TITLES = {
    "": "text of a",
    " \u200b\u00a0": "text of b",
    "\u2800\u3164": "d",  # its text is blank, too
    "\x1b[31mRed\x1b[0m lamp\x07": "Red lamp",
    "<img src=x onerror=alert(1)><b>Bold</b>": "<img src=x onerror=alert(1)><b>Bold</b>",
    "\u202eabc\u2066": "abc",
    "👩\u200d🚀 in space": "👩\u200d🚀 in space",
}
LONG = "Long " * 2000


@pytest.fixture
def service(recommender, tmp_path):
    """A service of `trained_run` whose first items have `TITLES`, and the next a title of 10,000 characters."""
    catalogue = recommender.catalogue
    items = catalogue.items
    titles = (*TITLES, LONG, *items.titles[len(TITLES) + 1 :])
    texts = ("text of a", "text of b", " \n", *items.texts[3:])
    ids = ("a", "b", "d", *items.ids[3:])
    changed = dataclasses.replace(catalogue, items=dataclasses.replace(items, ids=ids, titles=titles, texts=texts))
    parts = recommender.executor.trainable, recommender.texts.encoder
    with live(Recommender(recommender.config, changed, *parts), tmp_path) as service:
        yield service


def test_every_title_can_be_read_and_opened(service, context):
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message))
    rows = dict(zip(service.engine.first.catalogue.items.ids, [*TITLES.values(), "Long Long"]))
    page.add_init_script("localStorage.clear()")
    page.goto(f"http://127.0.0.1:{service.port}/")
    page.locator("#length").select_option("50")
    for identity, title in rows.items():
        shown = page.evaluate(
            """async (id) => {
                 const { ask } = await import("./service.js");
                 const { items: [item] } = await ask(`./items?id=${encodeURIComponent(id)}`);
                 const { card } = await import("./cards.js");
                 const about = await ask("./about");
                 const { root } = card(item, about, {});
                 document.getElementById("cards").append(root);
                 const name = root.querySelector(".title");
                 return { text: name.textContent, height: name.getBoundingClientRect().height,
                          width: name.getBoundingClientRect().width, inner: name.querySelector("img, b") !== null,
                          label: root.querySelector("legend").textContent.length };
               }""",
            identity,
        )
        if title == "Long Long":
            assert shown["text"].startswith(title)
            assert len(shown["text"]) <= 300
            assert shown["height"] < 120
        else:
            assert shown["text"] == title
        assert shown["width"] > 5
        assert not shown["inner"]
        assert shown["label"] < 320
    assert not errors
