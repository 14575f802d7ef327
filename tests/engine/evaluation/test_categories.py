"""Results by category: a column each in every kind of table, from the same paired differences."""

import csv
import io

import pytest

from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.summary import summarize
from asyncdiff_cli.engine.evaluation.table_data import to_csv, to_json
from asyncdiff_cli.engine.evaluation.table_markup import to_latex, to_markdown
from asyncdiff_cli.engine.evaluation.tables import category_blocks
from asyncdiff_cli.engine.figures.report import write_report
from tests.helpers.reporting import SETTINGS, store_row

POLICIES = (("baseline", 1.0), ("learned", 1.0), ("fixed:0.5", 1.0))
CATEGORIES = ("ground", "pair", "pair", "zebra", "single", None)


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    for place, category in enumerate(CATEGORIES):
        rows = [store_row(place, f"a {place}", *p, category=category) for p in POLICIES]
        rows[2]["clip"] = 9.0
        store.write(rows)
    return store


def test_each_category_is_compared_by_itself(store):
    summary = summarize(store)
    # mini's own order, and then what is not known
    assert list(summary.categories) == ["single", "pair", "ground", "zebra"]
    pair = summary.categories["pair"]
    assert (pair.prompts, summary.prompts) == (2, 6)
    learned = next(r for r in pair.results if r.setting.policy == "learned")
    found = learned.metrics["clip"]
    assert (found.mean, found.difference, found.n) == (2 + 1.5 + 0.625, 0.625, 2)
    assert summarize(store, "pair").results[0].metrics == pair.results[0].metrics
    assert summarize(store, intervals=False).categories == {}


def test_a_reward_has_a_table_with_a_column_per_category(store):
    clip, noise = category_blocks(summarize(store))
    assert clip.columns == ("policy", "single (1)", "pair (2)", "ground (1)", "zebra (1)")
    assert clip.title.startswith("CLIP score by category (mini on mini, 3 steps, 6 prompts")
    by_policy = {row[0].text: row for row in clip.rows}
    assert by_policy["baseline"][2].text == "3.5000"
    assert (by_policy["fixed:0.5"][2].text, by_policy["fixed:0.5"][2].mark) == ("9.0000", "best")
    assert by_policy["learned"][2].difference == "+0.6250"
    assert "noise (guard) by category" in noise.title


def test_every_format_has_them(store, tmp_path):
    summary = summarize(store)
    assert to_markdown(summary).count(" by category (") == 2
    assert to_latex(summary).count(" by category (") == 2
    rows = list(csv.DictReader(io.StringIO(to_csv(summary))))
    pair = [row for row in rows if row["category"] == "pair"]
    assert [row["policy"] for row in pair] == ["baseline", "fixed:0.5", "learned"]
    assert (pair[2]["clip"], pair[2]["clip_n"]) == ("4.125", "2")
    assert len([row for row in rows if not row["category"]]) == 3
    learned = to_json(summary)["rows"][2]
    assert learned["categories"]["pair"]["clip"]["difference"] == 0.625
    page = write_report(store.path, tmp_path / "page.html").read_text()
    assert "CLIP score by category" in page
    assert "pair (2)" in page


def test_a_set_without_categories_has_none(tmp_path):
    store = Store.open(tmp_path / "store", SETTINGS)
    store.write([store_row(0, "a cat", *policy) for policy in POLICIES])
    summary = summarize(store)
    assert category_blocks(summary) == []
    assert "category" not in to_csv(summary)
    assert "categories" not in to_json(summary)["rows"][0]


def test_a_policy_that_has_not_drawn_a_category_has_an_empty_place(store):
    store.write([store_row(9, "a 9", *policy, category="place") for policy in POLICIES[:2]])
    summary = summarize(store)
    place = list(summary.categories).index("place") + 1
    clip = category_blocks(summary)[0]
    assert clip.columns[place] == "place (1)"
    texts = {row[0].text: row[place].text for row in clip.rows}
    assert texts["fixed:0.5"] == ""
    assert texts["learned"]
    assert "place" not in to_json(summary)["rows"][1]["categories"]
