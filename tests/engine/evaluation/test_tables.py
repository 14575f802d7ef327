"""Summaries as tables, to the letter; and what is best, as the paper marks it."""

import csv
import io
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from asyncdiff_cli.engine.evaluation import cells
from asyncdiff_cli.engine.evaluation.table_data import to_csv, to_json
from asyncdiff_cli.engine.evaluation.table_files import write_tables
from asyncdiff_cli.engine.evaluation.table_markup import (
    escape_latex,
    escape_markdown,
    to_latex,
    to_markdown,
)
from asyncdiff_cli.engine.evaluation.table_terminal import to_rich
from asyncdiff_cli.engine.evaluation.tables import blocks
from asyncdiff_cli.engine.rewards import GUARD
from tests.helpers.summaries import result, summary, swept

SMALL = summary(
    result("baseline", bound=1.0, clip=0.25, pickscore=22.5, noise=-1.0),
    result("learned", deviation=0.25, clip=(0.26, 0.01, -0.005, 0.025),
           pickscore=(22.504, 0.004, -0.001, 0.009), noise=(-1.5, -0.5, -0.75, -0.25)),
    result("fixed:0.5", deviation=0.5, clip=(0.255, 0.005, 0.0, 0.01),
           pickscore=(22.25, -0.25, -0.5, -0.125), noise=(-0.5, 0.5, 0.25, 0.75)),
)  # fmt: skip


def test_best_is_among_the_rows_of_as_many_steps():
    block, = blocks(summary(
        result("baseline", steps=2, clip=0.1),
        result("learned", steps=2, clip=(0.2, 0.1, 0.1, 0.1)),
        result("baseline", steps=9, clip=0.4),
        result("learned", steps=9, clip=(0.3, -0.1, -0.1, -0.1)),
    ))  # fmt: skip
    assert [row[-1].mark for row in block.rows] == ["second", "best", "best", "second"]
    assert [row[1].text for row in block.rows] == ["2", "2", "9", "9"]


@pytest.mark.parametrize("metric", [GUARD, "sharpness"])
def test_what_is_only_reported_has_no_best(metric):
    assert not cells.has_best(metric)
    (block,) = blocks(summary(result("baseline", **{metric: 1.0}), result("a", **{metric: 2.0})))
    assert [row[-1].mark for row in block.rows] == ["", ""]


@pytest.mark.parametrize(
    ("changes", "columns"),
    [
        ({}, []),
        ({"gamma": 0.5}, ["gamma"]),
        ({"bound": 1.0}, ["bound"]),
        ({"gamma": 2.0, "bound": math.inf}, ["gamma", "bound"]),
    ],
)
def test_a_setting_has_a_column_where_rows_differ_in_it(changes, columns):
    rows = result("baseline", bound=1.0, clip=0.1), result("a", clip=0.1)
    (block,) = blocks(summary(*rows, result("b", **changes, clip=0.1)))
    assert block.columns == ("policy", *columns, "mean_deviation", "clip")


def test_the_baseline_s_own_settings_and_no_bound_at_all_stay_empty():
    (block,) = blocks(swept())
    assert [cell.text for cell in block.rows[0][:4]] == ["baseline", "", "", "+0.000"]
    (block,) = blocks(summary(
        result("baseline", clip=0.1),
        result("a", clip=0.1),
        result("detail-daemon", bound=math.inf, clip=0.1),
    ))  # fmt: skip
    assert [row[1].text for row in block.rows] == ["", "0.5", ""]


def test_a_value_that_rounds_to_zero_has_no_minus():
    (block,) = blocks(summary(
        result("baseline", clip=0.1),
        result("a", deviation=-0.0004, clip=(0.1, -0.00001, -0.00002, 0.00001)),
    ))  # fmt: skip
    assert block.rows[1][1].text == "+0.000"
    assert block.rows[1][2].difference == "+0.0000"
    assert block.rows[1][2].interval == "[+0.0000, +0.0000]"


def test_markdown_to_the_letter():
    assert to_markdown(SMALL) == (
        "mini on mini, 3 steps, 4 prompts: mean, and paired difference to the baseline with its"
        " 95 % interval\n"
        "\n"
        "| policy | mean D | CLIP score | PickScore | noise (guard) |\n"
        "| --- | ---: | --- | --- | --- |\n"
        "| baseline | +0.000 | 0.2500 | **22.50** | -1.0000 |\n"
        "| learned | +0.250 | **0.2600** +0.0100 [-0.0050, +0.0250]"
        " | **22.50** +0.00 [+0.00, +0.01] | -1.5000 -0.5000 [-0.7500, -0.2500] |\n"
        "| fixed:0.5 | +0.500 | <u>0.2550</u> +0.0050 [+0.0000, +0.0100]"
        " | 22.25 -0.25 [-0.50, -0.12] | -0.5000 +0.5000 [+0.2500, +0.7500] |\n"
    )


def test_csv_to_the_letter():
    small = summary(*SMALL.results[:2])
    assert to_csv(small) == (
        "source,policy,gamma,steps,bound,mean_deviation,"
        "clip,clip_difference,clip_low,clip_high,clip_n,"
        "pickscore,pickscore_difference,pickscore_low,pickscore_high,pickscore_n,"
        "noise,noise_difference,noise_low,noise_high,noise_n\n"
        "asyncdiff,baseline,1.0,3,,0.0,0.25,0.0,0.0,0.0,4,22.5,0.0,0.0,0.0,4,-1.0,0.0,0.0,0.0,4\n"
        "asyncdiff,learned,1.0,3,0.5,0.25,0.26,0.01,-0.005,0.025,4,"
        "22.504,0.004,-0.001,0.009,4,-1.5,-0.5,-0.75,-0.25,4\n"
    )


def test_latex_to_the_letter():
    small = summary(
        result("baseline", bound=1.0, mini_clip=0.5),
        result("learned", 0.5, mini_clip=(0.75, 0.25, -0.125, 0.5)),
    )
    assert to_latex(small) == (
        "% \\caption{mini on mini, 3 steps, 4 prompts: mean, and paired difference to the baseline"
        " with its 95 \\% interval.}\n"
        "\\begin{tabular}{lrrl}\n"
        "\\toprule\n"
        "policy & $\\gamma$ & mean D & mini\\_clip \\\\\n"
        "\\midrule\n"
        "baseline &  & +0.000 & \\underline{0.5000} \\\\\n"
        "\\addlinespace\n"
        "learned & 0.5 & +0.000 & \\textbf{0.7500} {\\scriptsize +0.2500} \\\\\n"
        " &  &  & {\\scriptsize [$-$0.1250, +0.5000]} \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def printed(found, width=160):
    console = Console(file=io.StringIO(), width=width, record=True, markup=False)
    for table in found:
        console.print(table)
    return console.export_text()


def test_a_terminal_shows_the_same_with_intervals_below():
    lines = [" ".join(line.split()) for line in printed(to_rich(SMALL)).splitlines()]
    start = lines.index("policy mean D CLIP score PickScore noise (guard)")
    assert lines[start + 2 : start + 7] == [
        "baseline +0.000 0.2500 22.50 -1.0000",
        "learned +0.250 0.2600 +0.0100 22.50 +0.00 -1.5000 -0.5000",
        "[-0.0050, +0.0250] [+0.00, +0.01] [-0.7500, -0.2500]",
        "fixed:0.5 +0.500 0.2550 +0.0050 22.25 -0.25 -0.5000 +0.5000",
        "[+0.0000, +0.0100] [-0.50, -0.12] [+0.2500, +0.7500]",
    ]


def test_a_terminal_shows_marks_as_bold_and_underlined():
    (table,) = to_rich(SMALL)
    cells = list(table.columns[2].cells)
    styles = [{span.style for span in cell.spans if span.start == 0} for cell in cells]
    assert styles == [set(), {"bold"}, {"underline"}]


def test_a_narrow_terminal_cuts_no_number():
    words = set(printed(to_rich(SMALL), width=60).split())
    assert {"+0.0100", "[-0.0050,", "+0.0250]", "fixed:0.5", "PickScore"} <= words


OF_THE_PAPER = summary(result("baseline", steps=10, clip=0.25), backbone="flux", dataset="coco2014")


def test_the_paper_s_numbers_follow_under_their_own_heading():
    ours, theirs = blocks(OF_THE_PAPER)
    assert theirs.title == "AsyncDiff paper, Table 2: FLUX.1-dev on MS-COCO 2014, 10 steps"
    assert (ours.source, theirs.source) == ("asyncdiff", "AsyncDiff paper, Table 2")
    assert to_markdown(OF_THE_PAPER).endswith(
        "\n\n"
        "AsyncDiff paper, Table 2: FLUX.1-dev on MS-COCO 2014, 10 steps\n"
        "\n"
        "| policy | mean D | ImageReward | HPSv2 | CLIP score | PickScore |\n"
        "| --- | ---: | --- | --- | --- | --- |\n"
        "| baseline | +0.000 | 0.7791 | 0.2769 | 0.2592 | 22.60 |\n"
        "| learned | +0.499 | <u>0.9267</u> | <u>0.2871</u> | <u>0.2600</u> | **22.74** |\n"
        "| lifted | +0.959 | **0.9452** | **0.2920** | **0.2601** | <u>22.70</u> |\n"
    )
    assert "AsyncDiff paper, Table 2" in printed(to_rich(OF_THE_PAPER))
    assert to_latex(OF_THE_PAPER).count("\\begin{tabular}") == 2


def test_csv_tells_the_paper_s_rows_from_ours():
    rows = list(csv.DictReader(io.StringIO(to_csv(OF_THE_PAPER))))
    assert [row["source"] for row in rows] == ["asyncdiff", *["AsyncDiff paper, Table 2"] * 3]
    assert rows[2]["policy"] == "learned"
    assert (rows[2]["bound"], rows[2]["mean_deviation"]) == ("0.5", "0.499")
    assert (rows[2]["clip"], rows[2]["clip_low"], rows[2]["image_reward"]) == ("0.26", "", "0.9267")
    assert (rows[0]["clip"], rows[0]["image_reward"]) == ("0.25", "")


@pytest.mark.parametrize("settings", [{"backbone": "flux"}, {"dataset": "coco2014"}])
def test_elsewhere_there_are_only_ours(settings):
    assert len(blocks(summary(result("baseline", clip=0.25), **settings))) == 1


def test_the_title_counts_what_is_not_complete():
    found = summary(result("baseline", clip=0.25), partial=2)
    assert blocks(found)[0].title.startswith(
        "mini on mini, 3 steps, 4 prompts, 2 more not complete:"
    )


def test_json_values():
    found = json.loads(json.dumps(to_json(swept()), allow_nan=False))
    assert (found["prompts"], found["partial"], found["paper"]) == (4, 0, None)
    assert found["settings"]["backbone"] == "mini"
    assert found["rows"][1] == {
        "policy": "learned",
        "gamma": 2.0,
        "steps": 3,
        "bound": 0.5,
        "mean_deviation": 0.25,
        "deviations": [0.25, 0.25],
        "at_bound": [0.0, 0.0],
        "seconds": 0.5,
        "metrics": {
            "clip": {"mean": 0.28, "difference": 0.03, "low": 0.02, "high": 0.05, "n": 4},
            "noise": {"mean": -1.5, "difference": -0.5, "low": -0.6, "high": -0.25, "n": 4},
        },
    }


def test_json_has_the_paper_s_rows_and_no_infinity():
    found = summary(
        result("baseline", clip=0.25),
        result("detail-daemon", bound=math.inf, clip=0.25),
        backbone="sd35",
        dataset="coco2014",
    )
    values = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert values["rows"][1]["bound"] is None
    assert values["paper"]["source"] == "AsyncDiff paper, Table 1"
    assert values["paper"]["rows"][2]["metrics"]["image_reward"] == 0.9670


def test_the_text_formats_are_written_side_by_side(tmp_path):
    paths = write_tables(SMALL, tmp_path / "new")
    assert [path.name for path in paths] == ["table.md", "table.csv", "table.tex"]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert texts == [to_markdown(SMALL), to_csv(SMALL), to_latex(SMALL)]


UNESCAPED = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^",
    r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"$\gamma$": "γ",
    "{[}": "[", "{*}": "*", **{f"\\{character}": character for character in "&%$#_{}"},
}  # fmt: skip


@given(st.text(st.sampled_from("ab1 :/.,-\\&%$#_{}~^<>|[]*γ")))
def test_latex_prints_what_was_escaped(text):
    """Every special character is within a command that prints it, and they spell the text."""
    found = escape_latex(text)
    commands = "|".join(map(re.escape, sorted(UNESCAPED, key=len, reverse=True)))
    rest = re.sub(commands, "", found)
    assert not set(rest) & set("\\&%$#_{}~^<>|[*γ")
    assert re.sub(commands, lambda match: UNESCAPED[match[0]], found) == text


def test_markdown_shows_what_was_escaped():
    assert escape_markdown("a|b*c`d<e\\f_g") == r"a\|b\*c\`d\<e\\f_g"
    awkward = summary(result("baseline", clip=0.25), result("learned:a|b", clip=0.25))
    assert "| learned:a\\|b |" in to_markdown(awkward)
    assert "learned:a\\textbar{}b &" in to_latex(awkward)
