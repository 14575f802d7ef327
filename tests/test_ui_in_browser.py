"""The page of `asyncdiff ui` as a browser shows it: dragged, typed at, and looked at."""

import re
import tempfile
from pathlib import Path

import pytest

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.drawing.provenance import read_provenance
from asyncdiff_cli.engine.drawing.request import parse_request
from asyncdiff_cli.engine.launching import free_port
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.ui.page import Page
from asyncdiff_cli.ui.server import serve
from asyncdiff_cli.ui.studio import Studio
from tests.helpers.browser import becomes, start_browser

pytest.importorskip("gradio", reason="gradio is not installed")

ASYNCHRONOUS = ".pictures figure:nth-child(2) img"
TOLD = "[...document.querySelectorAll('.curve text.told.middle')].map((text) => text.textContent)"


@pytest.fixture(scope="module")
def browser():
    yield from start_browser()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("ui")


@pytest.fixture(scope="module")
def url(browser, place):
    """The address of a page whose process has a home, a place for temporary files and one for
    what is saved; in the end only the last one has files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, folder in {"HOME": "home", "TMPDIR": "tmp", "GRADIO_TEMP_DIR": "tmp"}.items():
            (place / folder).mkdir(exist_ok=True)
            patch.setenv(name, str(place / folder))
        patch.setattr(tempfile, "tempdir", None)
        request = parse_request(prompts=("a cat",), steps=4, size=64, policy="fixed:0.5", seed=3)
        page = Page(Studio.open(request, ModelChoice(device="cpu"), Path("out")), request)
        with serve(page, "127.0.0.1", free_port()) as address:
            yield address
        files = [path.relative_to(place) for path in place.rglob("*") if path.is_file()]
        assert {path.parts[0] for path in files} <= {"out"}, files


@pytest.fixture
def visit(browser, url):
    """Open the page; in the end nothing may have failed, and nothing have been asked elsewhere."""
    contexts, complaints, fetched = [], [], []

    def go(**options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(url)
        page.locator(ASYNCHRONOUS).wait_for()
        return page

    yield go
    assert complaints == []
    assert [address for address in fetched if not address.startswith((url, "data:"))] == []
    for context in contexts:
        context.close()


def source(page):
    return page.locator(ASYNCHRONOUS).get_attribute("src")


def changes(page, before):
    """Whether the asynchronous picture is another one a little later."""
    return becomes(page, f"document.querySelector('{ASYNCHRONOUS}').src !== '{before}'")


def is_policy(page, line):
    return becomes(page, f"document.querySelector('input[aria-label=Policy]').value === '{line}'")


def drag(page, index, deviation):
    """Drag a point of the editor with the mouse, to a deviation."""
    page.locator(".handle").nth(index).scroll_into_view_if_needed()
    zero, one = (
        page.locator(".curve .zero").first.bounding_box()["y"],
        page.locator(".curve .grid").first.bounding_box()["y"],
    )
    point = page.locator(".handle .point").nth(index).bounding_box()
    x, y = (point[side] + point[size] / 2 for side, size in (("x", "width"), ("y", "height")))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 3, zero + deviation * (one - zero), steps=4)
    page.mouse.up()


def test_a_point_that_is_dragged_changes_the_picture(visit, place):
    page = visit()
    assert page.locator(".handle").count() == 3
    before, synchronous = source(page), page.locator(".pictures img").first.get_attribute("src")
    drag(page, 1, -0.5)
    assert changes(page, before)
    readout = page.locator(".readout").inner_text()
    assert re.match("Step 3 of 4: D −0.(49|50|51), t 0", readout)
    assert page.locator(".pictures img").first.get_attribute("src") == synchronous

    page.get_by_label("Schedule file").fill("dragged")
    page.get_by_role("button", name="Save the schedule").click()
    page.get_by_text("out/dragged.json", exact=True).wait_for()
    page.get_by_role("button", name="Save the pictures").click()
    page.get_by_text("Draws it again").wait_for()
    schedule = Schedule.load(place / "out" / "dragged.json")
    assert schedule.deviations == pytest.approx((0.5, -0.5, 0.5), abs=0.02)
    (file,) = (place / "out").glob("*-asynchronous.png")
    record = read_provenance(file)
    assert record.deviations == pytest.approx(schedule.deviations)
    assert page.evaluate(TOLD) == [f"{t:.3f}" for t in record.cond_sigmas[1:]]


def test_keys_move_points_and_go_between_them(visit):
    page = visit()
    before = source(page)
    page.locator(".handle").first.focus()
    for key in ("ArrowUp", "Shift+ArrowUp", "ArrowRight", "0", "ArrowRight", "End"):
        page.keyboard.press(key)
    told = page.evaluate(TOLD)  # by the page itself
    assert changes(page, before)
    assert is_policy(page, "schedule:0.56/0/1")
    assert page.evaluate(TOLD) == told  # by the run
    focused = page.locator(".handle:focus")
    assert focused.get_attribute("aria-valuenow") == "1"
    assert focused.get_attribute("aria-label") == "Deviation of step 4"


def test_an_error_stands_below_what_it_is_of_until_it_is_put_right(visit):
    page = visit()
    page.get_by_label("Steps").fill("0")
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text().startswith("error: --steps: ")
    button = page.get_by_role("button", name="Draw").bounding_box()
    assert 0 < alert.bounding_box()["y"] - button["y"] < 120
    page.get_by_label("Steps").fill("2")
    alert.wait_for(state="detached")
    assert becomes(page, "document.querySelectorAll('.handle').length", 1)


def test_it_fits_a_narrow_dark_window(visit):
    page = visit(viewport={"width": 360, "height": 760}, has_touch=True, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator(".curve svg").bounding_box()["width"] > 300
    assert page.locator(ASYNCHRONOUS).bounding_box()["width"] > 100
    before = source(page)
    drag(page, 0, 1)
    assert changes(page, before)


def test_a_file_of_the_browsers_machine_is_uploaded(visit, place, tmp_path):
    page = visit()
    page.get_by_text("File and backbone").click()
    files = page.locator(".upload input")
    wrong = tmp_path / "notes.txt"
    wrong.write_text("no schedule")
    files.set_input_files(wrong)
    page.get_by_text("error: upload one schedule or spectrum").wait_for()
    mine = tmp_path / "mine.json"
    Schedule(deviations=(0.25, 0.5, -0.75), solver="euler", steps=4).save(mine)
    files.set_input_files(mine)
    assert is_policy(page, "schedule:out/mine.json")
    assert becomes(page, "document.querySelectorAll('[role=alert]').length", 0)
    assert (place / "out" / "mine.json").read_bytes() == mine.read_bytes()
    assert page.get_by_label("Load", exact=True).first.input_value() == "out/mine.json"
    assert becomes(
        page, "document.querySelectorAll('.handle')[2].getAttribute('aria-valuenow')", "-0.75"
    )
