"""What the page's events do, without a browser: called as gradio calls them."""

import base64

import pytest

from asyncdiff_cli.engine.drawing.provenance import read_provenance
from asyncdiff_cli.engine.policies.schedule_file import Schedule
from asyncdiff_cli.ui.page import Page
from asyncdiff_cli.ui.studio import Studio

pytest.importorskip("gradio", reason="gradio is not installed")


def ignore(*_, **__):
    """What tells of progress, to nobody."""


@pytest.fixture
def page(studio, wish):
    return Page(studio, wish())


@pytest.fixture
def values(page):
    """What the page's parts hold as it opens."""
    names = "prompt seed steps guidance gamma policy curve live stepwise name place upload backbone"
    return {getattr(page, name): getattr(page, name).value for name in names.split()}


def test_it_opens_with_what_was_asked_for(page, values):
    shown = page._on_change(values, ignore)
    assert (shown[page.policy], shown[page.of_policy]) == ("fixed:0.5", "")
    assert shown[page.pictures].count("<img") == 3
    assert shown[page.estimates] == ""
    assert shown[page.curve]["deviations"] == (0.5, 0.5)
    assert "mini" in page.title.value
    assert str(page.studio.job.out) in page.title.value


def test_without_wishes_it_opens_with_the_backbones_own(opened, wish):
    page = Page(opened, wish(policy=None, steps=None, seed=None, gamma=None))
    entry = opened.job.backbone.entry
    assert page.policy.value == entry.policy == "spectral"
    assert (page.seed.value, page.gamma.value) == (0, 1)
    assert page.guidance.value == entry.guidance_scale


def test_a_drag_becomes_a_schedule_that_draws(page, values):
    before = page._on_change(values, ignore)
    dragged = {**before[page.curve], "deviations": [0.5, -0.25], "serial": 3, "dragged": True}
    shown = page._on_drag({**values, page.curve: dragged}, ignore)
    assert shown[page.policy] == "schedule:0.5/-0.25"
    assert shown[page.curve]["deviations"] == (0.5, -0.25)
    assert shown[page.curve]["serial"] == 3
    assert shown[page.pictures] != before[page.pictures]


def test_nothing_is_drawn_that_was_not_asked_for(page, values):
    dragged = {"deviations": [0.5, 0.1], "dragged": True}
    still = {**values, page.live: False, page.curve: dragged}
    assert page._on_change(still, ignore) == {}
    assert page._on_drag(still, ignore) == {
        page.policy: "schedule:0.5/0.1", page.curve: {**dragged, "dragged": False}
    }  # fmt: skip
    assert page.pictures in page._on_draw(still, ignore)


@pytest.mark.parametrize(
    ("part", "value", "where", "message"),
    [
        ("steps", 0, "of_draw", "--steps: "),
        ("prompt", " ", "of_draw", "a prompt is empty"),
        ("seed", None, None, ""),
        ("policy", "fixd:0.5", "of_policy", "did you mean &#39;fixed&#39;?"),
        ("policy", "learned:nowhere", "of_policy", "there is no directory nowhere"),
    ],
)
def test_an_error_is_said_below_what_it_is_of(page, values, part, value, where, message):
    shown = page._on_draw({**values, getattr(page, part): value}, ignore)
    if where is None:
        assert page.pictures in shown
        return
    said = shown[getattr(page, where)]
    assert said.count("<p") == 1
    assert "error: " in said
    assert message in said
    assert page.pictures not in shown


def test_a_policy_brings_its_gamma(page, values):
    shown = page._on_draw({**values, page.policy: "fixed:0.25@1.5"}, ignore)
    assert (shown[page.policy], shown[page.gamma]) == ("fixed:0.25", 1.5)
    assert shown[page.curve]["gamma"] == 1.5


def test_words_that_are_not_known_are_a_warning_and_no_markup(page, values):
    shown = page._on_draw({**values, page.prompt: "a <b>zeppelin</b>"}, ignore)
    assert "warning: mini does not know" in shown[page.of_draw]
    assert "&lt;b&gt;" in shown[page.pictures]
    assert "<b>zeppelin" not in shown[page.pictures]


def test_estimates_are_there_on_demand(page, values):
    shown = page._on_change({**values, page.stepwise: True}, ignore)
    assert shown[page.estimates].count("<img") == 2 * 3


def test_a_schedule_that_was_saved_can_be_loaded(page, values):
    drawn = {**values, page.policy: "schedule:0.75/0.25", page.gamma: 1.5, page.name: "mine"}
    said = page._on_save_schedule(drawn, ignore)[page.of_save]
    path = page.studio.job.out / "mine.json"
    assert f"schedule:{path}@1.5" in said
    assert Schedule.load(path).deviations == (0.75, 0.25)
    shown = page._on_load({**values, page.place: str(path)}, ignore)
    assert shown[page.policy] == f"schedule:{path}"
    assert shown[page.curve]["deviations"] == (0.75, 0.25)


def test_a_schedule_of_the_browsers_machine_can_be_loaded(page, values):
    page._on_save_schedule({**values, page.policy: "schedule:0.5/-0.25"}, ignore)
    (path,) = page.studio.job.out.glob("*.json")
    data = path.read_bytes()
    path.unlink()
    file = {"name": "mine.json", "size": len(data), "data": base64.b64encode(data).decode()}
    shown = page._on_upload({**values, page.upload: {"files": [file]}}, ignore)
    place = page.studio.job.out / "mine.json"
    assert (shown[page.place], shown[page.of_load]) == (str(place), "")
    assert shown[page.policy] == f"schedule:{place}"
    assert shown[page.curve]["deviations"] == (0.5, -0.25)
    assert "files" not in shown[page.upload]
    refused = page._on_upload({**values, page.upload: {"files": []}}, ignore)
    assert "upload one schedule or spectrum" in refused[page.of_load]
    assert refused.keys() == {page.of_load, page.upload}


def test_a_module_can_be_loaded(page, values, module):
    shown = page._on_load({**values, page.place: str(module)}, ignore)
    assert shown[page.policy] == f"learned:{module}"
    assert (shown[page.of_load], len(shown[page.curve]["deviations"])) == ("", 2)


def test_what_is_saved_is_what_the_editor_shows(page, values, module):
    dragged = {"deviations": [0.5, 0.1], "dragged": True}  # and not yet answered
    page._on_save_schedule({**values, page.curve: dragged, page.name: "mine"}, ignore)
    assert Schedule.load(page.studio.job.out / "mine.json").deviations == pytest.approx((0.5, 0.1))
    loaded = page._on_load({**values, page.curve: dragged, page.place: str(module)}, ignore)
    assert loaded[page.policy] == f"learned:{module}"
    assert loaded[page.curve]["deviations"] != (0.5, 0.1)


def test_what_cannot_be_loaded_leaves_the_rest_alone(page, values):
    shown = page._on_load({**values, page.place: "nowhere.json"}, ignore)
    assert "error: " in shown.pop(page.of_load)
    assert shown == {}


def test_saved_pictures_are_named(page, values):
    said = page._on_save(values, ignore)[page.of_save]
    paths = sorted(page.studio.job.out.glob("*.png"))
    assert len(paths) == 3
    assert all(str(path) in said for path in paths)
    assert read_provenance(paths[0]).policy["name"] == "fixed"


def test_another_backbone_brings_its_own_settings(page, values, pipelines):
    of_its_own = {**values, page.live: False, page.backbone: str(pipelines["sd3"])}
    shown = page._on_backbone(of_its_own, ignore)
    assert (shown[page.policy], shown[page.of_backbone]) == ("fixed:0.192", "")
    assert str(pipelines["sd3"]) in shown[page.title]
    wrong = page._on_backbone({**values, page.backbone: "minni"}, ignore)
    assert list(wrong) == [page.of_backbone]
    assert "did you mean &#39;mini&#39;?" in wrong[page.of_backbone]


def test_a_fault_is_one_line_too(page, values, monkeypatch):
    def fail(*_):
        raise TypeError("no such thing")

    monkeypatch.setattr(Studio, "draw", fail)
    said = page._on_draw(values, ignore)[page.of_draw]
    assert said.count("<p") == 1
    assert "error: internal, TypeError: no such thing" in said
