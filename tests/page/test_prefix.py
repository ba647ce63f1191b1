"""The page under a path of a proxy."""

from __future__ import annotations

import pytest
from live_service import live
from prefix_proxy import proxied
from trained import fresh

pytestmark = pytest.mark.browser


def test_the_page_works_under_a_path_of_a_proxy(recommender, tmp_path, context):
    errors: list[str] = []
    with live(fresh(recommender), tmp_path) as service, proxied(service.port) as proxy:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://127.0.0.1:{proxy.server_port}/rec/#for-you")
        page.locator(".card").first.wait_for()
        with page.expect_response("**/rec/feedback") as sent:
            page.locator(".card .title").first.click()
        assert sent.value.status == 201
        page.locator("#details h3", has_text="Similar").wait_for()
        page.close()
    asked = {path.partition("?")[0] for path in proxy.asked}
    assert all(path.startswith("/rec/") for path in asked - {"/favicon.ico"})
    assert {"/rec/about", "/rec/recommend", "/rec/feedback", "/rec/similar"} <= asked
    assert not errors
