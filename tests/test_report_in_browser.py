"""The report as a browser shows it: opened from the disk, looked at, clicked and typed at."""

import pytest

from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import summarize
from asyncdiff_cli.engine.evaluation.tables import blocks
from asyncdiff_cli.engine.figures.report import write_report
from tests.helpers.browser import becomes, start_browser
from tests.helpers.reporting import HOSTILE, POLICIES, make_run, make_store

GRID = ".grid button"


@pytest.fixture(scope="module")
def browser():
    yield from start_browser()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three prompts with images of two, one of which is lost."""
    store = make_store(tmp_path_factory.mktemp("report") / "store")
    store.image("images/0-1.png").unlink()
    write_report(store.path, store.path / "report.html")
    return store


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("report") / "run")
    make_store(run / "evaluation")
    write_report(run, run / "report.html")
    return run


@pytest.fixture
def visit(browser):
    """Open a report; in the end nothing may have failed, been asked or been fetched."""
    contexts, complaints, fetched = [], [], []

    def go(path, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(f"file://{path / 'report.html'}")
        return page

    yield go
    assert complaints == []
    assert [url for url in fetched if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in fetched if url.startswith("file:")]) == len(contexts)
    for context in contexts:
        context.close()


@pytest.fixture
def page(visit, store):
    return visit(store.path)


def shown(page):
    """The heading and the prompt of the large view."""
    text = page.locator("#view .text")
    return text.locator("h2").inner_text(), text.locator("> p").inner_text()


def is_open(page):
    return page.locator("#view").evaluate("view => view.open")


def test_a_script_that_got_in_would_not_run(browser, store):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"file://{store.path / 'report.html'}")
    said = []
    page.on("console", lambda message: said.append(message.text))
    with page.expect_console_message():
        page.evaluate(
            "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')"
        )
    assert "violates the following Content Security Policy" in said[0]
    context.close()


def test_every_image_is_decoded_when_it_is_looked_at(page):
    images = page.locator(".grid img")
    assert images.count() == 2 * len(POLICIES) - 1
    for image in images.all():
        image.scroll_into_view_if_needed()
        image.evaluate("image => image.decode()")
        assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [8, 8]
        box = image.bounding_box()
        assert box["width"] == box["height"] > 100
    assert page.get_by_text("no image", exact=True).count() == 1


def test_charts_have_a_size_and_all_that_they_refer_to(page):
    charts = page.locator("figure svg")
    assert charts.count() == 3
    for chart in charts.all():
        box = chart.bounding_box()
        assert box["width"] > 250
        assert box["height"] > 100
    assert page.evaluate(
        """() => [...document.querySelectorAll("svg use")].every(
            (use) => document.querySelector(use.getAttribute("xlink:href")).getBBox)"""
    )


def test_the_table_shows_the_numbers(page, store):
    (block,) = blocks(summarize(Store(store.path)))
    table = page.locator("table.numbers").first
    assert table.is_visible()
    assert table.locator("caption").inner_text() == f"{block.title}."
    rows = table.locator("tbody tr").all()
    for row, cells in zip(rows, block.rows, strict=True):
        found = [" ".join(text.split()) for text in row.locator("th, td").all_inner_texts()]
        assert found == [f"{c.text} {c.difference} {c.interval}".strip() for c in cells]
    best = table.locator(".best .mean").first
    assert best.evaluate("mean => getComputedStyle(mean).fontWeight") == "700"


def test_a_click_enlarges_and_escape_returns(page):
    assert not is_open(page)
    assert not page.locator(".details").first.is_visible()
    page.locator(GRID).nth(1).click()
    assert is_open(page)
    assert shown(page) == ("fixed:0.5", "a cat")
    image = page.locator("#view > img")
    image.evaluate("image => image.decode()")
    assert image.evaluate("image => image.naturalWidth") == 8
    assert image.bounding_box()["width"] > 500
    facts = " ".join(page.locator("#view .text").inner_text().split())
    for fact in ("γ 1", "mean D +0.062", "noise seed 100", "CLIP score 2.2500 +0.2500"):
        assert fact in facts
    assert "2 0.750 0.625 +0.250 3 0.500 0.562 -0.125" in facts
    page.keyboard.press("Escape")
    assert not is_open(page)
    assert becomes(page, "document.activeElement.closest('td')?.cellIndex", 1)


def test_arrows_go_through_policies_and_prompts_in_the_same_place(page):
    page.locator(GRID).first.focus()
    page.keyboard.press("Enter")
    place = page.locator("#view > img").bounding_box()
    seen = []
    for key in ("Right", "Right", "Right", "Left", "Down", "Left", "Up", "Down", "Down"):
        page.keyboard.press(f"Arrow{key}")
        seen.append(shown(page))
        large = page.locator("#view > img")
        assert large.bounding_box() == place
        assert large.get_attribute("alt") == f"{seen[-1][1]} ({seen[-1][0]})"
    assert seen == [
        ("fixed:0.5", "a cat"),
        ("learned", "a cat"),  # past the one that is lost
        ("learned", "a cat"),  # the last one
        ("fixed:0.5", "a cat"),
        ("fixed:0.5", HOSTILE),
        ("baseline", HOSTILE),
        ("baseline", "a cat"),
        ("baseline", HOSTILE),
        ("baseline", HOSTILE),  # there are no images of the third prompt
    ]
    page.keyboard.press("Escape")
    alt = "document.activeElement.querySelector('img')?.alt"
    assert becomes(page, alt, f"{HOSTILE} (baseline)")


def test_each_image_of_the_large_view_is_the_one_of_its_place(page):
    sources = [image.get_attribute("src") for image in page.locator(".grid img").all()[-4:]]
    assert len(set(sources)) == 4
    page.locator(GRID).nth(3).click()
    for source in sources:
        assert page.locator("#view > img").get_attribute("src") == source
        page.keyboard.press("ArrowRight")


def test_buttons_do_what_the_keys_do(visit, store):
    page = visit(store.path, viewport={"width": 400, "height": 800}, has_touch=True)
    page.locator(GRID).first.tap()
    for name, heading in [("Next policy", "fixed:0.5"), ("Previous policy", "baseline")]:
        page.get_by_role("button", name=name).tap()
        assert shown(page) == (heading, "a cat")
    page.get_by_role("button", name="Next prompt").tap()
    assert shown(page) == ("baseline", HOSTILE)
    page.get_by_role("button", name="Previous prompt").tap()
    assert shown(page) == ("baseline", "a cat")
    page.get_by_role("button", name="Close").tap()
    assert not is_open(page)


def test_a_prompt_is_text_and_runs_nothing(page):
    assert HOSTILE in page.locator("th[scope=rowgroup]").all_inner_texts()
    assert page.locator("img[onerror]").count() == 0


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 900, "light"), (400, 800, "dark")])
def test_it_fits_and_follows_the_colours(visit, store, run, width, height, scheme):
    size = {"width": width, "height": height}
    for path in (store.path, run):
        page = visit(path, viewport=size, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(255, 255, 255)") == (scheme == "light")
        card = page.locator(".card").first
        assert card.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
        text = page.locator("p").first.bounding_box()
        assert 300 < text["width"] <= 720


def test_printing_fetches_the_images(page):
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    last = page.locator(".grid img").last
    last.evaluate("image => image.decode()")
    assert last.evaluate("image => image.naturalWidth") == 8
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert page.locator(".grid").is_visible()


def test_without_scripts_what_is_known_stands_below_each_image(visit, store):
    page = visit(store.path, java_script_enabled=False)
    assert page.locator(".details").first.is_visible()
    assert "noise seed" in page.locator(".details").first.inner_text()


def test_a_run_shows_its_training_and_its_evaluation(visit, run):
    page = visit(run)
    for chart in page.locator("figure svg").all():
        assert chart.bounding_box()["height"] > 100
    assert page.locator("figure svg").count() == 4
    recipe = page.locator("details pre")
    assert not recipe.is_visible()
    page.get_by_text("The whole recipe").click()
    assert recipe.inner_text().startswith("# a recipe <b>made by hand</b>")
    page.locator(GRID).first.click()
    assert shown(page) == ("iteration 1, the best by held-out reward", "the run's fixed prompts")
    page.keyboard.press("ArrowDown")
    assert shown(page)[0] == "iteration 2"
    page.keyboard.press("ArrowDown")  # the grid of the evaluation is another one
    assert shown(page)[0] == "iteration 2"
