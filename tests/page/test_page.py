"""The page in Chromium, against a running service: with a mouse, by keyboard, and on a phone."""

from __future__ import annotations

import re

import pytest
from page_service import serving

pytestmark = pytest.mark.browser

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


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def tab_to(page, what: str) -> None:
    """Presses Tab until what a selector names has the focus, and sees that one sees where that is."""
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("(what) => document.activeElement.matches(what)", what):
            break
    seen = page.evaluate(
        """() => {
          const node = document.activeElement;
          const round = node.closest(".stars") ?? node;
          const { top, bottom } = round.getBoundingClientRect();
          const header = node.closest("header, dialog") ? 0 : document.querySelector("header").offsetHeight;
          const inside = top >= header - 1 && bottom <= innerHeight + 1;
          return [node.matches("body"), getComputedStyle(round).outlineStyle, inside];
        }"""
    )
    assert seen == [False, "solid", True], what


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
    rate_found(page, "toy story", 5)
    title = page.locator("#rated .name").text_content()
    assert title == "Toy Story (1995)"
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
    mine = rate_found(page, "fargo", 4)
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
    mine = rate_found(page, "star wars", 5)
    want = listed(page)
    person = service.ask("/users")["users"][0]
    page.get_by_text("View as another user").click()
    page.locator("#person").select_option(person["id"])
    page.get_by_role("button", name="View as this user").click()
    page.get_by_text(f"You are viewing as user {person['id']}").wait_for()
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


def test_words_of_a_text_are_weighed_on_request(page):
    """As `/explain` weighs them: words that the item's text has, in the order of what they move."""
    rate_found(page, "toy story", 5)
    page.locator(".card .title").first.click()
    page.get_by_role("button", name="Which words of its text matter?").click()
    heading = page.get_by_role("heading", name="What the words of its text add, approximately")
    heading.wait_for()
    assert heading.evaluate("node => node === document.activeElement")
    block = heading.locator("xpath=..")
    words = block.locator(".name").all_text_contents()
    assert words or "No single word changes" in block.text_content()
    item = page.evaluate("document.querySelector('.card').dataset.id")
    text = page.evaluate("async (id) => (await (await fetch(`/items/${id}`)).json()).text.toLowerCase()", item)
    assert all(word.lower() in text for word in words)
    sizes = [abs(float(value.replace("−", "-"))) for value in block.locator(".value").all_text_contents()]
    assert sizes == sorted(sizes, reverse=True)


def test_rating_can_be_done_with_the_keyboard(page):
    press(page, "Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the list"
    for _ in range(10):
        press(page, "Tab")
        if page.evaluate("document.activeElement.id") == "search":
            break
    page.keyboard.type("toy st")
    until(page, "document.querySelector('#found-note').textContent.includes('found')")
    press(page, "Tab", "Space")  # the first star of the first item,
    press(page, "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")  # and the fifth
    settle(page)
    assert page.locator("#rated-count").text_content() == "1"
    assert page.locator("#rated input:checked").get_attribute("value") == "5"
    ring = page.evaluate("getComputedStyle(document.querySelector(':focus') ?? document.body).outlineStyle")
    for _ in range(80):
        press(page, "Tab")
        if page.evaluate("document.activeElement.classList.contains('remove')"):
            ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            press(page, "Enter")
            break
    settle(page)
    assert ring == "solid"
    assert page.locator("#rated-count").text_content() == "0"
    # A card that was rated leaves the list, and the next one has the focus.
    page.locator(".card input").first.focus()
    press(page, "Space")
    settle(page)
    assert page.evaluate("Boolean(document.activeElement.closest('.card'))")


def test_before_and_after_with_the_keyboard(page):
    loved = rate_found(page, "aliens", 5)
    page.reload()
    page.locator(".card").first.wait_for()
    want = listed(page)
    tab_to(page, "#as-change")
    press(page, "Enter")
    assert ids(page.locator("#change ol").nth(1).locator("li")) == want
    assert loved not in want
    assert page.locator("#as-change").get_attribute("aria-pressed") == "true"
    press(page, "Shift+Tab", "Space")
    assert listed(page) == want
    assert page.locator("#as-cards").get_attribute("aria-pressed") == "true"


def test_questions_are_answered_with_the_keyboard(page):
    question = "document.querySelector('#asking-title').textContent"
    tab_to(page, "#ask-me")
    press(page, "Enter")
    page.locator("#asking-title").wait_for()
    until(page, "document.activeElement.id === 'asking-title'")
    first = page.evaluate(question)
    tab_to(page, "#asking input")
    press(page, "ArrowLeft")  # from the first star round to the last
    until(page, f"(old) => {question} !== old", first)
    assert page.locator("#rated .name").text_content().startswith(first)
    assert page.locator("#rated input:checked").get_attribute("value") == "5"
    second = page.evaluate(question)
    until(page, "document.activeElement.id === 'asking-title'")
    tab_to(page, "#asking button")
    press(page, "Enter")  # I do not know it
    until(page, f"(old) => {question} !== old", second)
    assert page.locator("#rated li").count() == 1
    until(page, "document.activeElement.id === 'asking-title'")
    tab_to(page, "#asking button.quiet")
    press(page, "Enter")
    assert page.evaluate("document.activeElement.id") == "ask-me"
    assert not page.locator("#asking").is_visible()


def test_an_item_is_added_with_the_keyboard(page):
    tab_to(page, "#adding summary")
    press(page, "Enter", "Tab")
    page.keyboard.type("Hives")
    press(page, "Tab")
    page.keyboard.type("A year with bees, and what they do in winter.")
    tab_to(page, "#new-details input[value='Documentary']")
    press(page, "Space")
    tab_to(page, "#add-form button")
    press(page, "Enter")
    page.get_by_text("can be recommended now").wait_for()
    tab_to(page, "#added input")
    press(page, "ArrowRight")
    settle(page)
    assert page.locator("#rated .name").text_content() == "Hives"
    assert page.locator("#rated input:checked").get_attribute("value") == "2"
    page.locator("#search").focus()
    page.keyboard.type("hives")
    until(page, "document.querySelector('#found-note').textContent.includes('1 of them rated')")


REPLACED = """() => {
  const node = document.querySelector("svg.chart");
  if (!window.seen) document.querySelector("#dashboard-view button").click();
  window.seen ??= node;
  return node !== window.seen;
}"""


def test_the_dashboard_with_the_keyboard(page):
    tab_to(page, "#to-dashboard")
    press(page, "Enter")
    page.locator("svg.chart").first.wait_for()
    assert page.title() == "Dashboard · metarec"
    tab_to(page, "#dashboard-view button")
    press(page, "Enter")
    until(page, "document.querySelector('#dashboard-view [role=status]').textContent.startsWith('As of')")
    tab_to(page, ".scrolls")
    # Figures that come anew, since they were asked for, take the focus from nobody.
    until(page, REPLACED)
    assert page.evaluate("document.activeElement.matches('.scrolls')")
    tab_to(page, "#dashboard-view summary")
    press(page, "Enter")
    assert page.get_by_role("region", name="Figures over time").is_visible()
    page.locator("#to-dashboard").focus()
    press(page, "Shift+Tab", "Enter")
    page.locator("#list-view").wait_for()  # a browser tells of the new address only after the key's own work
    assert not page.locator("#dashboard-view").is_visible()


def test_the_skip_link_leads_below_the_header(page):
    press(page, "Tab", "Enter")
    assert page.evaluate("document.activeElement.id") == "for-you"
    assert page.evaluate(BELOW, "#for-you")


def fits(page) -> None:
    """Nothing is wider than the phone, and what can be touched is large enough for a finger (WCAG 2.2, 2.5.8)."""
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("visualViewport.scale") == 1
    assert page.evaluate(TOO_SMALL) == []


TOO_SMALL = """() => [...document.querySelectorAll("a, button, summary, select, textarea, label, input")]
  .filter((node) => node.checkVisibility() && !node.matches(".hidden, .skip, label input, label.hidden"))
  .filter((node) => node.tagName !== "LABEL" || node.control.matches("[type=radio], [type=checkbox]"))
  .map((node) => [node.id || node.className || node.textContent, node.getBoundingClientRect()])
  .filter(([, { width, height }]) => Math.min(width, height) < 24)
  .map(([name, { width, height }]) => `${name}: ${width} by ${height}`)"""

BELOW = """(what) => {
  const { top, bottom } = document.querySelector(what).getBoundingClientRect();
  return top >= document.querySelector("header").offsetHeight - 1 && bottom <= innerHeight + 1;
}"""


def test_before_and_after_on_a_phone(small):
    fits(small)
    before = listed(small)
    small.locator(".card").first.locator(".stars label").nth(4).tap()
    settle(small)
    after = listed(small)
    small.get_by_role("button", name="Before / after").tap()
    lists = small.locator("#change ol")
    assert [ids(lists.nth(n).locator("li")) for n in (0, 1)] == [before, after]
    fits(small)
    small.get_by_role("button", name="List", exact=True).tap()
    small.locator(".card .title").first.tap()
    small.get_by_text("Similar", exact=True).wait_for()
    fits(small)
    small.get_by_role("button", name="Close", exact=True).tap()
    assert listed(small) == after


def test_questions_are_answered_on_a_phone(small):
    small.get_by_role("button", name="Ask me").tap()
    question = small.locator("#asking-title")
    question.wait_for()
    fits(small)
    first = question.text_content()
    assert small.evaluate(BELOW, "#asking-title")
    small.locator("#asking .stars label").nth(4).tap()
    until(small, "(old) => document.querySelector('#asking-title').textContent !== old", first)
    assert small.evaluate(BELOW, "#asking-title")
    assert small.locator("#rated .name").text_content().startswith(first)
    fits(small)
    small.get_by_role("button", name="Enough").tap()
    assert not small.locator("#asking").is_visible()


def test_an_item_is_added_on_a_phone(small):
    small.get_by_text("Add an item").tap()
    fields = small.locator("input:not([type=radio], [type=checkbox]), select, textarea")
    sizes = fields.evaluate_all("nodes => nodes.map((node) => parseFloat(getComputedStyle(node).fontSize))")
    assert min(sizes) >= 16  # phones zoom in on a field of smaller letters, and the page is wider than the screen then
    small.get_by_label("Text", exact=True).fill("Combs (1998). A year with bees.")
    small.locator("#new-details label", has_text="Documentary").tap()
    assert small.locator("#new-details input:checked").count() == 1
    fits(small)
    small.get_by_role("button", name="Add it").tap()
    small.get_by_text("can be recommended now").wait_for()
    small.locator("#added .stars label").nth(2).tap()
    settle(small)
    assert small.locator("#rated .name").text_content().startswith("Combs (1998)")
    fits(small)


def test_the_dashboard_on_a_phone(small):
    for _ in range(2):  # the second time it has been drawn before
        small.evaluate("scrollTo(0, 900)")
        small.get_by_role("link", name="Dashboard").tap()
        small.locator("svg.chart").first.wait_for()
        assert small.evaluate(BELOW, "#dashboard-view h1")
        fits(small)
        small.get_by_text("The figures over time as a table").tap()
        fits(small)
        small.get_by_role("link", name="For you").tap()
        small.locator(".card").first.wait_for()
        assert small.evaluate(BELOW, "#for-you")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_that_is_written_can_be_read(page, scheme):
    page.emulate_media(color_scheme=scheme)

    def read() -> None:
        ratios = page.evaluate(CONTRAST, [EVERYTHING])
        assert len(ratios) > 5
        assert min(ratios.values()) >= 4.5, ratios  # WCAG 2.2, 1.4.3

    rate_found(page, "fargo", 5)
    until(page, "[...document.querySelectorAll('.reason')].some((one) => one.textContent)")
    read()
    page.get_by_role("button", name="Ask me").click()
    page.locator("#asking-title").wait_for()
    page.get_by_role("button", name="Before / after").click()
    page.get_by_text("Add an item").click()
    read()
    page.get_by_role("button", name="List", exact=True).click()
    page.locator(".card .title").first.click()
    page.get_by_text("Similar", exact=True).wait_for()
    read()
    page.get_by_role("button", name="Close", exact=True).click()
    page.get_by_role("link", name="Dashboard").click()
    page.locator("svg.chart").first.wait_for()
    read()


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
    ratios = page.evaluate(CONTRAST, SOME)
    assert min(ratios.values()) >= 4.5, ratios
    context.close()


SOME = ["h1", ".muted", ".card .title", ".tag", ".chip", ".number", "#ask-me", ".count", "#search"]
EVERYTHING = "body *"

CONTRAST = """(selectors) => {
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
  const words = (one) => [...one.childNodes].some((part) => part.nodeType === 3 && part.data.trim());
  const says = (one) => one.matches("input") || words(one);
  const seen = (one) => one.checkVisibility() && !one.closest("option, title, .hidden, .skip");
  for (const which of selectors) {
    for (const node of [...document.querySelectorAll(which)].filter((one) => says(one) && seen(one))) {
      const style = getComputedStyle(node);
      const colour = node.closest("svg") ? style.fill : style.color;
      const [a, b] = [numbers(colour).slice(0, 3), behind(node)].map(light);
      const name = which.includes("*") ? `${node.localName} ${node.getAttribute("class") ?? ""} ${node.id}` : which;
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      found[name] = Math.min(ratio, found[name] ?? ratio);
    }
  }
  return found;
}"""


NOT_DRAWN = """() => [...document.querySelectorAll("svg.chart *")]
  .filter((node) => [...node.attributes].some(({ value }) => /NaN|Infinity/.test(value)))
  .map((node) => node.outerHTML)"""


def test_a_new_service_with_a_token_asks_for_it_once_and_draws_what_nobody_rated(context, run, tmp_path):
    secret = "a token of some length"
    with serving(run, tmp_path / "store", METAREC_TOKEN=secret) as address:
        page = context.new_page()
        page.goto(address)
        page.locator("#token").fill(secret)
        page.get_by_role("button", name="Go on").click()
        page.locator(".card").first.wait_for()
        page.reload()
        page.locator(".card").first.wait_for()
        assert not page.locator("#token").is_visible()
        page.get_by_role("link", name="Dashboard").click()
        page.locator("svg.chart").first.wait_for()
        assert page.locator(".tile", has_text="Ratings in lists").locator("strong").text_content() == "0"
        assert page.locator("svg.chart text").count() > 0
        assert page.evaluate(NOT_DRAWN) == []
