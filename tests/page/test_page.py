"""What a person does on the page, in a real browser, against a real service."""

from __future__ import annotations

import re

import pytest
from conftest import serving
from trained import believing_run

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def ids(place) -> list[str]:
    """Of items, in their order."""
    return place.evaluate_all("nodes => nodes.map((node) => node.dataset.id)")


def listed(page) -> list[str]:
    return ids(page.locator(".card"))


def rated(page) -> list[str]:
    return ids(page.locator("#rated li"))


def until(page, condition: str, argument=None) -> None:
    """Waits for a condition in JavaScript. Playwright's own way to wait is an eval, which the page's policy forbids."""
    for _ in range(400):
        if page.evaluate(condition, argument):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it never came to {condition}")


def settle(page) -> None:
    """Waits until what was rated is in the list."""
    page.wait_for_timeout(400)  # how long a choice settles, see stars.js
    until(page, "!document.querySelector('[aria-busy]')")


def rate(place, level: int) -> None:
    place.locator(".stars label").nth(level - 1).click()


def rate_found(page, words: str, level: int) -> str:
    """Searches and rates the first item that is found."""
    page.get_by_role("searchbox").fill(words)
    until(page, "document.querySelector('#found-note').textContent.includes('found')")
    first = page.locator("#found li").first
    identity = first.get_attribute("data-id")
    rate(first, level)
    settle(page)
    return identity


def remove(page, identity: str) -> None:
    page.locator(f"#rated li[data-id='{identity}'] .remove").click()
    settle(page)


def figures(service) -> dict:
    return service.ask("/figures")["arms"]["a"]


def test_a_newcomer_rates_and_the_list_changes_at_once_and_back(page, service):
    before = listed(page)
    assert len(before) == 10
    assert "What anybody would get" in page.locator("#adapted").text_content()
    loved = before[4]
    rate(page.locator(".card").nth(4), 5)
    settle(page)
    assert rated(page) == [loved]
    after = listed(page)
    assert loved not in after
    assert "Adapted to 1 rating" in page.locator("#adapted").text_content()
    hated = page.locator("#found li").first.get_attribute("data-id")
    rate(page.locator("#found li").first, 1)
    settle(page)
    assert rated(page) == [hated, loved]
    third = listed(page)
    assert third not in (before, after)
    # The list is the one that the service makes of these ratings.
    history = [{"item": loved, "rating": 5}, {"item": hated, "rating": 1}]
    asked = service.ask("/recommend", {"history": history, "log": False})
    assert [card["id"] for card in asked["items"]] == third
    remove(page, hated)
    assert listed(page) == after
    remove(page, loved)
    assert rated(page) == []
    assert listed(page) == before


def test_a_card_has_its_prediction_its_uncertainty_and_a_reason_of_the_users_own(page):
    rate_found(page, "a", 5)
    title = page.locator("#rated .name").text_content()
    card = page.locator(".card").first
    assert re.fullmatch(
        r"Predicted rating \d\.\d ± \d\.\d; for anybody \d\.\d", card.locator(".score").get_attribute("aria-label")
    )
    until(page, "[...document.querySelectorAll('.reason')].some((one) => one.textContent)")
    reasons = set(page.locator(".reason").all_text_contents()) - {""}
    assert reasons == {f"Because you rated {title} 5"}


def test_before_and_after_stand_side_by_side(page):
    before = listed(page)
    rate(page.locator(".card").first, 1)
    settle(page)
    after = listed(page)
    page.get_by_role("button", name="Before / after").click()
    lists = page.locator("#change ol")
    assert ids(lists.nth(0).locator("li")) == before
    assert ids(lists.nth(1).locator("li")) == after
    assert lists.nth(0).locator("li").first.locator(".tag").text_content() == "you: 1"
    assert page.locator(".links path").count() == len(set(before) & set(after))


def test_ratings_survive_a_reload_and_a_state_that_is_refused(page, errors):
    mine = rate_found(page, "b", 4)
    want = listed(page)
    page.reload()
    page.locator(".card").first.wait_for()
    assert rated(page) == [mine]
    assert page.locator("#rated input:checked").get_attribute("value") == "4"
    assert listed(page) == want
    page.evaluate(
        """() => {
          const all = JSON.parse(localStorage.getItem("metarec ratings"));
          all.me.state = all.me.base = all.me.user = "made_up";
          all.me.ratings.push({ id: "no such item", title: "Gone", rating: 3 });
          localStorage.setItem("metarec ratings", JSON.stringify(all));
        }"""
    )
    page.reload()
    page.locator(".card").first.wait_for()
    assert rated(page) == ["no such item", mine]
    assert "not among the items of this service" in page.locator("#rated li").first.text_content()
    assert listed(page) == want
    assert errors
    assert all("422" in error for error in errors)  # the state, and the item
    errors.clear()


def test_the_interview_asks_what_was_not_asked_before(page):
    before = listed(page)
    page.get_by_role("button", name="Ask me").click()
    question = page.locator("#asking-title")
    question.wait_for()
    first = question.text_content()
    page.get_by_role("button", name="I do not know it").click()
    until(page, "(old) => document.querySelector('#asking-title').textContent !== old", first)
    second = question.text_content()
    rate(page.locator("#asking"), 5)
    until(page, "(old) => document.querySelector('#asking-title').textContent !== old", second)
    assert page.locator("#rated .name").text_content().startswith(second)
    assert listed(page) != before
    page.get_by_role("button", name="Enough").click()
    assert not page.locator("#asking").is_visible()


def test_somebody_elses_ratings_are_looked_at_and_ones_own_are_kept(page, service):
    mine = rate_found(page, "c", 5)
    want = listed(page)
    person = service.ask("/users")["users"][0]
    page.get_by_text("Look as somebody else").click()
    page.locator("#person").select_option(person["id"])
    page.get_by_role("button", name="Look as this user").click()
    page.get_by_text(f"You look as user {person['id']}").wait_for()
    settle(page)
    assert page.locator("#rated-count").text_content() == str(person["ratings"])
    assert listed(page) != want
    page.get_by_role("button", name="Back to my ratings").click()
    settle(page)
    assert rated(page) == [mine]
    assert listed(page) == want


def test_a_new_item_is_there_at_once_and_hostile_text_is_text(page, service):
    page.get_by_text("Add an item").click()
    page.get_by_label("Title (or the beginning of the text)").fill(HOSTILE)
    page.get_by_label("Text", exact=True).fill(f"{HOSTILE} A film about bees.")
    page.get_by_role("button", name="Add it").click()
    page.get_by_text("can be recommended now").wait_for()
    rate(page.locator("#added"), 5)
    settle(page)
    assert page.locator("#rated .name").text_content() == HOSTILE
    page.get_by_role("searchbox").fill("onerror")
    until(page, "document.querySelector('#found-note').textContent.includes('found')")
    remove(page, rated(page)[0])
    # In every list, as a reason, in the details of an item, and in before and after.
    found = page.locator("#found li").first
    assert found.locator(".name").text_content() == HOSTILE
    rate(found, 5)
    settle(page)
    page.locator(".card .title").first.click()
    page.get_by_text("What your ratings add to this prediction").wait_for()
    assert HOSTILE in page.locator(".influences .name").first.text_content()
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("button", name="Before / after").click()
    assert page.title() == "metarec"
    assert page.locator("img[src=x], main script").count() == 0


def test_all_of_it_can_be_done_with_the_keyboard(page):
    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)

    press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the list"
    for _ in range(10):
        press("Tab")
        if page.evaluate("document.activeElement.id") == "search":
            break
    page.keyboard.type("a")
    until(page, "document.querySelector('#found-note').textContent.includes('found')")
    press("Tab", "Space")  # the first star of the first item,
    press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")  # and the fifth
    settle(page)
    assert page.locator("#rated-count").text_content() == "1"
    assert page.locator("#rated input:checked").get_attribute("value") == "5"
    ring = page.evaluate("getComputedStyle(document.querySelector(':focus') ?? document.body).outlineStyle")
    for _ in range(80):
        press("Tab")
        if page.evaluate("document.activeElement.classList.contains('remove')"):
            ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            press("Enter")
            break
    settle(page)
    assert ring == "solid"
    assert page.locator("#rated-count").text_content() == "0"
    # A card that was rated leaves the list, and the next one has the focus.
    page.locator(".card input").first.focus()
    press("Space")
    settle(page)
    assert page.evaluate("Boolean(document.activeElement.closest('.card'))")


def test_what_was_done_is_on_the_dashboard(page, service):
    before = figures(service)
    page.locator(".card .title").first.click()
    page.get_by_role("button", name="Close", exact=True).click()
    rate(page.locator(".card").first, 4)
    settle(page)
    until(page, "JSON.parse(localStorage.getItem('metarec ratings')).me.events.length === 0")
    after = figures(service)
    assert after["clicks"] == before["clicks"] + 1
    assert after["ratings"] == before["ratings"] + 1
    assert after["impressions"] > before["impressions"]
    page.get_by_role("link", name="Dashboard").click()
    tile = page.locator(".tile", has_text="Impressions").locator("strong")
    tile.wait_for()
    assert tile.text_content() == f"{after['impressions']:,}"
    row = page.get_by_role("row", name=re.compile("^CTR"))
    assert f"{100 * after['ctr']['value']:.1f} % (" in row.text_content()
    assert page.locator("svg.chart").count() == 4
    assert page.locator("svg.chart .whisker").count() > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(chromium, service, scheme):
    context = chromium.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.goto(service.address)
    page.locator(".card").first.wait_for()
    for link in ("Dashboard", "For you"):
        page.get_by_role("link", name=link).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    label = page.locator(".card .stars label").first.bounding_box()
    assert min(label["width"], label["height"]) >= 24  # WCAG 2.2, 2.5.8
    ratios = page.evaluate(CONTRAST)
    assert min(ratios.values()) >= 4.5, ratios
    context.close()


CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const which of ["h1", ".muted", ".card .title", ".tag", ".chip", ".number", "#ask-me", ".count", "#search"]) {
    const node = [...document.querySelectorAll(which)].find((one) => one.offsetParent);
    if (!node) continue;
    const [a, b] = [numbers(getComputedStyle(node).color).slice(0, 3), behind(node)].map(light);
    found[which] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }
  return found;
}"""


def test_a_service_with_a_token_asks_for_it_once(chromium, context, tmp_path):
    secret = "a token of some length"
    with serving(believing_run(), tmp_path / "store", METAREC_TOKEN=secret) as address:
        page = context.new_page()
        page.goto(address)
        page.locator("#token").fill(secret)
        page.get_by_role("button", name="Go on").click()
        page.locator(".card").first.wait_for()
        page.reload()
        page.locator(".card").first.wait_for()
        assert not page.locator("#token").is_visible()
