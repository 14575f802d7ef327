"""The report of a store or a run: what is in its one file, and that nothing else is needed."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.drawing.provenance import CHUNK
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import summarize
from asyncdiff_cli.engine.evaluation.tables import blocks
from asyncdiff_cli.engine.figures.report import write_report
from tests.helpers.reporting import (
    HOSTILE,
    POLICIES,
    PROMPTS,
    RECIPE,
    SETTINGS,
    compared,
    make_run,
    make_store,
    provenance,
    store_row,
)

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A report as elements with their attributes, and as text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.open, self.source = [], [], path.read_text(encoding="utf-8")
        self.texts, self.cells = [], []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and "script" not in self.open:
            self.texts.append(data)
            if "td" in self.open or "th" in self.open:
                self.cells[-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def images(self):
        """The bytes of the embedded files."""
        uris = [own["src"] for own in self.all("img") if "loading" in own]
        return [base64.b64decode(uri.removeprefix("data:image/png;base64,")) for uri in uris]


@pytest.fixture
def report(tmp_path):
    def make(path):
        return Page(write_report(path, tmp_path / "out" / "report.html"))

    return make


@pytest.fixture
def page(report, tmp_path):
    return report(make_store(tmp_path / "store").path)


def test_it_says_what_was_evaluated(page):
    assert page.source.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert page.text.startswith("mini on mini, 3 prompts mini on mini, 3 prompts Policies that")
    assert page.open == []
    assert page.elements[2] == ("meta", {"charset": "utf-8"})
    assert "width=device-width" in str(page.all("meta"))


def test_the_tables_are_those_of_the_command_line(page, tmp_path):
    cells = [" ".join(cell.split()) for cell in page.cells]
    for block in blocks(summarize(Store(tmp_path / "store"))):
        assert f"{block.title}." in page.text
        for row in block.rows:
            wanted = [" ".join(f"{c.text} {c.difference}{c.interval}".split()) for c in row]
            starts = [n for n in range(len(cells)) if cells[n : n + len(wanted)] == wanted]
            assert len(starts) == 1
    marked = re.findall(r'<td class="(best|second)"><span class="mean">([^<]*)', page.source)
    assert marked == [("best", "3.5000"), ("best", "3.5000")]  # fixed:0.5 and learned


def test_the_papers_numbers_stand_beside_ours_and_not_in_the_categories(report, tmp_path):
    store = make_store(tmp_path / "store", backbone="sd35", dataset="t2i-compbench")
    for place, category in enumerate(["texture", "zebra", "color", "color"], 3):
        rows = [store_row(place, f"a {place}", *policy, category=category) for policy in POLICIES]
        store.write(rows if place < 6 else rows[:1])
    page = report(store.path)
    assert page.text.count("AsyncDiff paper, Table 1: SD3.5-Medium on T2I-CompBench, 15 steps") == 1
    assert "0.8642" in page.text
    assert re.findall(r"<h3>(.*)</h3>", page.source) == ["color", "texture", "zebra"]
    assert page.text.count("sd35 on t2i-compbench, 3 steps, 1 prompts") == 3
    assert "1 prompts are not drawn by all policies yet, and are left out." in page.text


def test_a_category_that_cannot_be_compared_yet_is_left_out(report, tmp_path):
    store = make_store(tmp_path / "store")
    store.write([store_row(3, "a bee", *policy, category="color") for policy in POLICIES])
    store.write([store_row(4, "a fly", "learned", 1.0, category="shape")])
    assert re.findall(r"<h3>(.*)</h3>", report(store.path).source) == ["color"]


@pytest.mark.parametrize(
    ("policies", "charts"),
    [
        (POLICIES, ["gamma", "noise", "histogram"]),
        ([("baseline", 1.0), ("fixed:0.5", 1.0)], ["noise"]),
        ([("baseline", 1.0), ("fixed:0.5", 1.0), ("fixed:1", 1.0)], ["deviation", "noise"]),
        ([("baseline", 1.0), ("time-shift", 1.0)], ["noise", "histogram"]),
        ([("baseline", 1.0)], []),
    ],
)
def test_charts_are_of_what_varies(report, tmp_path, policies, charts):
    page = report(make_store(tmp_path / "store", policies=policies).path)
    svgs = page.all("svg")
    assert [svg["id"] for svg in svgs] == [f"chart-{name}" for name in charts]
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 40 for svg in svgs)
    assert ('href="#charts"' in page.source) == bool(charts)


def test_numbers_of_steps_are_an_axis(report, tmp_path):
    store = make_store(tmp_path / "store")
    changes = {"num_inference_steps": 4, "deviations": [0.0] * 3, "cond_sigmas": [1, 0.8, 0.6, 0.3]}
    for place, prompt in enumerate(PROMPTS):
        store.write([store_row(place, prompt, *policy, **changes) for policy in POLICIES])
    page = report(store.path)
    names = ["chart-gamma", "chart-steps", "chart-noise", "chart-histogram"]
    assert [svg["id"] for svg in page.all("svg")] == names
    # images were kept of three steps alone, so the columns need no number
    assert "learned, γ\u00a0=\u00a00.5</th>" in page.source


def test_without_the_guard_or_another_reward_there_is_no_chart_of_noise(report, tmp_path):
    for name in ("clip", "noise"):
        rewards = {name: SETTINGS["rewards"][name]}
        page = report(make_store(tmp_path / name, rewards=rewards).path)
        assert [svg["id"] for svg in page.all("svg")] == ["chart-gamma", "chart-histogram"]


def test_one_step_decides_nothing(report, tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    one = {"num_inference_steps": 1, "deviations": [], "cond_sigmas": [1.0]}
    store.write([store_row(0, "a cat", name, 1.0, **one) for name in ("baseline", "learned")])
    assert [svg["id"] for svg in report(store.path).all("svg")] == ["chart-noise"]


def test_no_id_is_there_twice_and_every_reference_has_one(page):
    ids = [own["id"] for _, own in page.elements if own.get("id")]
    assert len(ids) == len(set(ids)) > 100
    used = [own["xlink:href"] for own in page.all("use")]
    used += [f"#{name}" for name in re.findall(r"url\(#([^)]*)\)", page.source)]
    used += [own["href"] for own in page.all("a")]
    assert set(used) <= {f"#{name}" for name in ids}


def test_images_are_the_kept_files_with_their_provenance(page, tmp_path):
    files = sorted((tmp_path / "store" / "images").iterdir())
    assert sorted(page.images()) == sorted(file.read_bytes() for file in files)
    for content in page.images():
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.text[CHUNK].startswith('{"backbone":"mini"')
    for image in page.all("img")[:-1]:
        assert (image["loading"], image["decoding"]) == ("lazy", "async")
        assert (image["width"], image["height"]) == ("8", "8")
        assert image["alt"].startswith(("a cat (", HOSTILE))
    assert "The images of 2 of 3 prompts were kept." in page.text


def test_each_image_has_its_policy_scores_and_times(page):
    cells = [" ".join(cell.split()) for cell in page.cells]
    details = page.source.split('<div class="details" hidden>')
    assert len(details) == 1 + 2 * len(POLICIES)
    half = details[4]  # after the baseline and fixed:0.5, as in the table
    assert "<h2>learned, γ = 0.5</h2>" in details[3]
    assert "<h2>learned</h2>" in half
    assert "<dt>γ</dt><dd>1</dd>" in half
    assert "<dt>mean D</dt><dd>+0.062</dd>" in half
    assert "<dt>noise seed</dt><dd>100</dd>" in half
    assert "<td>2.2500</td><td>+0.2500</td>" in half
    assert "<td>0.750</td><td>0.625</td><td>+0.250</td>" in half
    assert "<td>0.500</td><td>0.562</td><td>-0.125</td>" in half
    assert "<td>2.0000</td><td></td>" in details[1]
    assert cells.count("step") == 2 * len(POLICIES)


def test_what_was_not_kept_or_is_lost_is_a_gap(report, tmp_path):
    store = make_store(tmp_path / "store")
    store.image("images/0-2.png").unlink()
    store.image("images/1-0.png").write_bytes(b"no image")
    store.write([store_row(n, prompt, "fixed:1", 1.0) for n, prompt in enumerate(PROMPTS)])
    page = report(store.path)
    assert len(page.images()) == 6
    assert page.text.count("no image") == 2
    assert "fixed:1" in page.text


def test_a_store_without_images_has_no_grid(report, tmp_path):
    page = report(make_store(tmp_path / "store", kept=0).path)
    assert page.images() == []
    assert "#images" not in page.source


def test_nothing_of_a_prompt_or_a_policy_is_markup(report, tmp_path):
    policies = [("baseline", 1.0), (f"learned:{HOSTILE}", 1.0), (f"learned:{HOSTILE}", 2.0)]
    store = make_store(tmp_path / "store", policies=policies, dataset=HOSTILE)
    page = report(store.path)
    assert page.source.count("<script") == page.source.count("</script>") == 1
    assert not [own for own in page.all("img") if "onerror" in own or own["src"] == "x"]
    assert page.all("b") == []
    assert "49" not in page.text.replace("0.49", "")
    assert HOSTILE in page.text
    assert f"learned:{HOSTILE}" in page.text
    assert page.open == []


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, own in page.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
            assert own.get(name, "#").startswith(("#", "data:")), (tag, own[name][:80])
    assert not re.search(r"@import|url\((?!#)", page.source)
    policy = page.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'; ")
    script = page.source.split("<script>")[1].split("</script>")[0]
    assert len(script.strip().splitlines()) < 60


def test_the_same_store_gives_the_same_bytes(tmp_path):
    store = make_store(tmp_path / "store")
    first, second = (write_report(store.path, tmp_path / f"{n}.html") for n in range(2))
    assert first.read_bytes() == second.read_bytes()
    again = make_store(tmp_path / "again" / "store")
    assert write_report(again.path, tmp_path / "3.html").read_bytes() == first.read_bytes()


def test_settings_versions_and_the_command_are_there(page):
    for name, value in SETTINGS.items():
        if value is not None and name != "rewards":
            assert page.cells[page.cells.index(name) + 1] == str(value)
    assert "revision" not in page.cells
    assert page.cells[page.cells.index("reward clip") + 1] == "dtype float32"
    assert page.cells[page.cells.index("device") + 1] == "cpu"
    assert page.cells[page.cells.index("torch") + 1] == "2.9.0"
    command = "asyncdiff eval \\ --policies baseline,fixed:0.5,learned@0.5,learned \\ --steps 3 \\"
    assert command in page.text
    assert "Not recorded, and so not in it: shards" in page.text


def test_rows_of_two_versions_are_told(report, tmp_path):
    store = make_store(tmp_path / "store")
    newer = provenance("a bee", versions={"torch": "2.10.0"}, device="NVIDIA H100")
    for policy in POLICIES:
        store.write([store_row(3, "a bee", *policy, provenance=newer.model_dump_json())])
    page = report(store.path)
    assert page.cells[page.cells.index("torch") + 1] == "2.9.0, 2.10.0"
    assert page.cells[page.cells.index("device") + 1] == "cpu, NVIDIA H100"


def test_headers_have_a_scope_and_images_a_text(page):
    assert all(own.get("scope") for own in page.all("th"))
    assert all("alt" in own for own in page.all("img"))
    assert len(page.all("caption")) >= 4


def test_a_run_is_reported(report, tmp_path):
    page = report(make_run(tmp_path / "my run"))
    assert page.text.startswith("Training of my run")
    assert [svg["id"] for svg in page.all("svg")] == ["chart-training"]
    assert page.cells[page.cells.index("iterations") + 1] == "2 of 4"
    assert page.cells[page.cells.index("best by held-out reward") + 1] == "iteration 1"
    assert page.cells[page.cells.index("rewards") + 1] == "clip × 1"
    cells = [" ".join(cell.split()) for cell in page.cells]
    assert cells[(n := cells.index("baseline")) : n + 5] == [
        "baseline",
        "+0.000",
        "2.0000",
        "-1.0000",
        "",
    ]
    assert cells[(n := cells.index("1, best")) : n + 3] == [
        "1, best",
        "+0.125",
        "2.5000 +0.5000[+0.0000, +1.0000]",
    ]
    assert "the noise rose <i>" in page.text
    assert RECIPE.splitlines()[0] in page.text
    assert "&lt;b&gt;made by hand&lt;/b&gt;" in page.source
    names = [tmp_path / "my run" / "samples" / f"00000{n}.png" for n in (1, 2)]
    assert page.images() == [name.read_bytes() for name in names]
    assert "Settings" not in page.text


def test_only_the_last_and_the_best_samples_are_shown(report, tmp_path):
    run = make_run(tmp_path / "run")
    for iteration in (3, 4):
        (run / "samples" / f"00000{iteration}.png").write_bytes(
            (run / "samples" / "000002.png").read_bytes()
        )
    page = report(run)
    assert len(page.images()) == 2
    assert "iteration 1, the best by held-out reward" in page.text
    assert "iteration 4" in page.text


def test_a_run_with_an_evaluation_has_both(report, tmp_path):
    run = make_run(tmp_path / "run")
    make_store(run / "evaluation")
    page = report(run)
    assert page.text.startswith("Training of run")
    assert "Evaluation: mini on mini, 3 prompts" in page.text
    names = ["chart-training", "chart-gamma", "chart-noise", "chart-histogram"]
    assert [svg["id"] for svg in page.all("svg")] == names
    assert len(page.images()) == 2 + 8


def test_a_run_that_has_just_begun(report, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(RECIPE)
    page = report(tmp_path / "run")
    assert "No iteration is complete yet." in page.text
    assert page.cells[page.cells.index("iterations") + 1] == "0 of 4"
    assert "best by held-out reward" not in page.cells


@pytest.mark.parametrize("recipe", ["", "- 1", "{", "backbone: mini", "rewards: [a]"])
def test_a_damaged_recipe_is_named(tmp_path, recipe):
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(InputError, match=r"recipe\.yaml is damaged"):
        write_report(tmp_path, tmp_path / "report.html")


@pytest.mark.parametrize("name", [".", "nowhere", "notes.txt"])
def test_what_is_neither_is_refused_with_what_to_give(tmp_path, name):
    (tmp_path / "notes.txt").write_text("mine")
    message = "holds neither an evaluation nor a training run: give a directory that `asyncdiff"
    with pytest.raises(InputError, match=message) as error:
        write_report(tmp_path / name, tmp_path / "report.html")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_a_store_without_rows_is_refused(tmp_path):
    Store.open(tmp_path / "store", SETTINGS).begin()
    with pytest.raises(InputError, match="has no rows"):
        write_report(tmp_path / "store", tmp_path / "report.html")


def test_an_older_report_stays_if_the_new_one_cannot_be_written(tmp_path):
    store = make_store(tmp_path / "store")
    out = write_report(store.path, tmp_path / "report.html")
    before = out.read_bytes()
    store.write([store_row(3, "a bee", *policy) for policy in POLICIES])
    store.parts()[0].write_bytes(b"PAR1")
    with pytest.raises(AsyncDiffError, match="is damaged"):
        write_report(store.path, out)
    assert out.read_bytes() == before
    with pytest.raises(AsyncDiffError, match="cannot write"):
        write_report(make_store(tmp_path / "other").path, tmp_path / "store")


def test_the_comparison_of_the_helpers_is_one_of_trainings():
    assert compared(1.0, 0.5) == {"mean": 1.0, "difference": 0.5, "low": 0.0, "high": 1.0, "n": 3}
