"""What a visitor does on the page before the service has answered for the first time."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_an_action_before_the_first_answer_waits_for_it(context, service, errors):
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    held = []
    page.route("**/about", lambda route: held.append(route))
    with page.expect_request("**/about"):
        page.goto(service.address)
    page.locator("#length").select_option("25")
    page.locator("#search").fill("star wars")
    page.wait_for_timeout(300)  # the search begins 150 ms after the last key
    (about,) = held
    about.continue_()
    page.locator(".card").nth(24).wait_for()
    page.locator("#found li").first.wait_for()
    assert not errors
