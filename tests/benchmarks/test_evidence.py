"""The table of the evidence: equal calls, other prompts to tune on, and going on after a kill."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.drawing.seeds import EVALUATION, noise_seed
from asyncdiff_cli.engine.evaluation.contender import seed_of_noise
from asyncdiff_cli.engine.evaluation.start import open_evaluation
from asyncdiff_cli.engine.policies.specs import parse_policy
from asyncdiff_cli.engine.prompts.load import load_prompts
from asyncdiff_cli.engine.statistics import all_paired
from benchmarks.calls import counted
from benchmarks.evidence import comparison, plan
from benchmarks.evidence.__main__ import parse_plan, write
from benchmarks.evidence.bench import Bench
from benchmarks.evidence.figure import evidence_figure
from benchmarks.evidence.markdown import difference, to_markdown
from benchmarks.evidence.means import mean_policies
from benchmarks.evidence.plan import Plan, rung_pictures, rungs
from benchmarks.evidence.rows import (
    MORE_STEPS,
    NEEDS,
    SYNCHRONOUS,
    Candidate,
    Module,
    Row,
    Schedules,
    more_steps,
    rows,
)
from benchmarks.evidence.run import Runner, describe
from benchmarks.evidence.tuning import at_end
from tests.conftest import make_case
from tests.helpers.modules import randomised, save_module, tpm_for
from tests.helpers.training import small_recipe

STEPS = 3
FOUND = Schedules(dict.fromkeys(plan.searched_solvers(), (0.5, 0.1)), (0.2, 0.3))
FEW = (
    "best constant", "shifted grid", "UniPC", "UniPC, best deviation", "chosen", "for UniPC",
    "chosen, its mean for all",
)  # fmt: skip


class Categorised(Plan):
    """A plan whose held-out prompts are of two categories."""

    @property
    def held_out(self):
        own = super().held_out
        named = {place: "ab"[n % 2] for n, place in enumerate(own.order)}
        categories = tuple(named.get(n, "c") for n in range(len(own.texts)))
        return replace(own, texts=replace(own.texts, categories=categories))


@pytest.fixture(scope="module")
def asked(pipelines, tmp_path_factory):
    """A plan for a tiny pipeline and a module that chooses by the picture."""
    recipe = small_recipe(pipelines["sd3"], guidance_scale=2.0, size=16)
    place = str(save_module(tmp_path_factory.mktemp("tpm")))
    modules = {"chosen": Module(place), "for UniPC": Module(place, "unipc")}
    return Categorised(
        recipe, (STEPS,), 4, 3, search=None, modules=modules, rewards=("noise",), set_metrics=(),
        only=(*FEW, MORE_STEPS),
    )  # fmt: skip


@pytest.fixture(scope="module")
def bench(asked, tmp_path_factory):
    return Bench(open_evaluation(asked.comparison(), tmp_path_factory.mktemp("bench") / "model"))


@pytest.fixture(scope="module")
def done(asked, bench, tmp_path_factory):
    """The folder and the report of a plan that was carried out."""
    out = tmp_path_factory.mktemp("evidence")
    report = {**describe(asked, bench), "steps": [*Runner(asked, bench, out).run()]}
    return out, report


def test_every_row_asks_the_denoiser_as_often(asked, bench, tmp_path):
    transformer = bench.evaluation.canvas.backbone.pipe.transformer
    for row in rows(STEPS, asked.modules, FOUND, shifts=True):
        own = row.candidates[-1]
        with counted(transformer) as asked_for:
            drawn = bench.draw(tmp_path / row.slug, [own], asked.held_out, 2)
        assert drawn[own].evaluations == own.evaluations == STEPS
        assert sum(asked_for) == 2 * 2 * STEPS, row.name  # pictures and branches of guidance
    assert bench.branches == 2


@pytest.mark.parametrize("actions", [("deviation",), ("deviation", "scale"), ("scale", "grid")])
def test_what_a_module_decides_in_the_mean_is_a_policy_for_all(asked, bench, tmp_path, actions):
    tpm = randomised(tpm_for(make_case("sd3"), 1.0, actions))
    tpm.save_pretrained(tmp_path / "tpm")
    module = Module(str(tmp_path / "tpm"))
    modules = {"its": module, "for UniPC": replace(module, solver="unipc")}
    modules["for Heun"] = replace(module, solver="heun")
    modules["no module"] = Module("time-shift:0.5")
    own = replace(asked, modules=modules, only=None)
    assert not mean_policies(replace(own, only=FEW), bench, STEPS, tmp_path)
    found = mean_policies(own, bench, STEPS, tmp_path)
    if "grid" in actions:
        assert not found
        return
    assert [*found] == ["its", "for UniPC"]
    for name, mean in found.items():
        _check_mean(bench, own, modules[name], parse_policy(mean, own.entry).policy)
    (tmp_path / "mean-its-3.json").write_text('{"module": "of another", "policy": "fixed:1"}')
    assert mean_policies(own, bench, STEPS, tmp_path) == found
    again = replace(bench, evaluation=None)  # what is there is read
    assert mean_policies(own, again, STEPS, tmp_path) == found
    (tmp_path / "mean-its-3.json").write_text('{"module": ')
    with pytest.raises(InputError, match=r"mean-its-3\.json"):
        mean_policies(own, bench, STEPS, tmp_path)


def _check_mean(bench, asked, module, policy):
    bench.put(module.solver, None)
    canvas, prompts = bench.evaluation.canvas, asked.chosen_on
    texts = [prompts.texts.texts[n] for n in prompts.order]
    conditions = bench.encode(texts)
    choosing = parse_policy(module.policy(STEPS), asked.entry).policy
    drawn = [
        canvas.sample(
            [conditions[text]], [seed_of_noise(prompts.seed, n, 0)],
            choosing, STEPS,
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
    deviations = torch.cat([result.deviations for result in drawn])
    assert deviations.std(0).min() > 0
    assert policy.deviations == pytest.approx(deviations.mean(0).tolist(), abs=1e-3)
    if "scale" in choosing.tpm.actions:
        assert policy.name == "scaled-schedule"
        assert min(abs(scale - 1) for scale in policy.scales) > 1e-3
    else:
        assert policy.name == "schedule"


@pytest.mark.parametrize("steps", [5, 8, 10, 15])
def test_only_heun_takes_one_call_more_where_it_must(steps):
    for row in rows(steps, {"module": Module("learned")}, FOUND, shifts=True):
        more = steps % 2 == 0 and row.name.startswith("Heun")
        assert {c.evaluations for c in row.candidates} == {steps + more}
    counts = [candidate.steps for candidate in more_steps(steps)]
    assert counts[0] > steps
    assert all(a < b for a, b in pairwise(counts))


def test_modules_that_differ_with_k_are_one_row():
    modules = {
        "a": Module("runs/{K}/tpm"),
        "b": Module("lifted:runs/{K}-{K}"),
        "c": Module("lifted"),
    }
    for steps in (5, 15):
        found = {row.name: row.candidates for row in rows(steps, modules, FOUND, shifts=True)}
        assert [found[name][0].policy for name in "abc"] == [
            f"learned:runs/{steps}/tpm", f"lifted:runs/{steps}-{steps}", "lifted",
        ]  # fmt: skip


def test_prompts_to_tune_on_are_no_others(asked):
    chosen_on, held_out = asked.chosen_on, asked.held_out
    texts = [
        {*p.texts.draw(0, 0), *(p.texts.texts[n] for n in p.order)} for p in (chosen_on, held_out)
    ]
    seen = load_prompts("mini", "validation").draw(3, asked.recipe.evaluation.seed)
    assert [len(own) for own in texts] == [3, 4]
    assert not texts[0] & texts[1]
    assert not texts[1] & {*seen}
    seeds = [{noise_seed(p.seed, EVALUATION, n) for n in range(9)} for p in (chosen_on, held_out)]
    assert not seeds[0] & seeds[1]


def test_the_report_compares_with_both(done):
    own = done[1]["steps"][0]
    by_name = {row["row"]: row for row in own["rows"]}
    assert {*by_name} == {SYNCHRONOUS, MORE_STEPS, *FEW}
    means = [row["metrics"]["composite"]["mean"] for row in own["rows"]]
    assert means == sorted(means, reverse=True)
    static = by_name[own["static"]]["metrics"]["composite"]
    assert (static["static"]["low"], static["static"]["high"]) == (0, 0)
    for row in own["rows"]:
        assert (row["calls"] > own["calls"]) == (row["row"] == MORE_STEPS)
        found = row["metrics"]["composite"]
        assert found["n"] == 4
        assert found["difference"] == pytest.approx(found["mean"])
        assert found["static"]["difference"] == pytest.approx(found["mean"] - static["mean"])


def test_a_choice_is_compared_with_the_best_static_policy_of_its_solver(done):
    own = done[1]["steps"][0]
    by_name = {row["row"]: row for row in own["rows"]}
    choices = {choice["row"]: choice for choice in own["choice"]}
    chosen, unipc = choices["chosen"], choices["for UniPC"]
    assert chosen["static"] == own["static"]
    assert chosen.items() >= by_name["chosen"]["metrics"]["composite"]["static"].items()
    statics = [by_name[name] for name in ("UniPC", "UniPC, best deviation")]
    best = max(statics, key=lambda row: row["tuned_composite"])
    assert unipc["static"] == best["row"]
    means = [row["metrics"]["composite"]["mean"] for row in (by_name["for UniPC"], best)]
    assert unipc["difference"] == pytest.approx(means[0] - means[1])
    assert by_name["for UniPC"]["solver"] == "unipc"


def test_categories_are_parts(done):
    own = done[1]["steps"][0]
    for row in own["rows"]:
        assert {*row["categories"]} == {"a", "b"}
        whole = row["metrics"]
        for metric in ("composite", "sharpness"):
            parts = [part[metric] for part in row["categories"].values()]
            assert [part["n"] for part in parts] == [2, 2]
            mean = sum(part["mean"] for part in parts) / 2
            assert mean == pytest.approx(whole[metric]["mean"], abs=1e-6)
    assert {*own["choice"][0]["categories"]} == {"a", "b"}


def test_what_is_used_is_better_than_all_that_needs_less(done):
    used, less = SYNCHRONOUS, {SYNCHRONOUS}
    for step in done[1]["steps"][0]["ladder"]:
        assert {over["row"] for over in step["over"]} == less - {step["row"]}
        worth = step["over"] and all(over["low"] > 0 for over in step["over"])
        used = step["row"] if worth else used
        assert step["use"] == used
        less.add(step["row"])


def test_tuning_is_counted(done):
    own = done[1]["steps"][0]
    tuned = {row["row"]: row["tuned_calls"] for row in own["rows"]}
    each = STEPS * 2  # with guidance
    assert tuned["best constant"] == rung_pictures(7, 3) * each == 3 * 7 * each
    alone = [name for name, calls in tuned.items() if not calls]  # nothing to choose
    assert {*alone} == {SYNCHRONOUS, "UniPC", "chosen", "for UniPC", "chosen, its mean for all"}
    single = len(alone) * 3 * each
    assert own["cost"]["held-out"]["pictures"] == 4 * len(own["rows"])
    assert own["cost"]["tuning"]["calls"] == sum(tuned.values()) + single


def test_what_was_killed_goes_on(asked, bench, tmp_path):
    few, drawn = replace(asked, only=("best constant",)), []

    class KilledError(Exception):
        pass

    def kill(count):
        drawn.append(count)
        if sum(drawn) > 12:
            raise KilledError

    with pytest.raises(KilledError):
        [*Runner(few, Bench(bench.evaluation, kill), tmp_path).run()]
    before = sum(drawn)
    (own,) = Runner(few, Bench(bench.evaluation, drawn.append), tmp_path).run()
    parts = [own["cost"][part]["pictures"] for part in ("tuning", "held-out")]
    assert parts == [3 * (1 + 7), 4 * 2]
    assert 12 < before < sum(drawn) == sum(parts)
    assert [*Runner(few, Bench(bench.evaluation, kill), tmp_path).run()] == [own]  # draws no more


def test_the_table_is_made_of_the_json_alone(done, tmp_path):
    report = done[1]
    json_file, markdown, figure = write(report, tmp_path)
    assert to_markdown(json.loads(json_file.read_text())) == markdown.read_text()
    assert figure.stat().st_size > 1000
    text = markdown.read_text()
    assert "| composite over synchronous | a (2) | b (2) |" in text
    assert "chosen over its solver's best static policy" in text
    for row in report["steps"][0]["rows"]:
        assert f"| {row['row']} |" in text
    assert "in float32 on a cpu" in text
    assert "K = 5" not in text.split("## ")[0]  # what is alone is in no overview


def test_points_of_more_calls_are_open_and_those_of_the_legend_are_full(done):
    report = json.loads(json.dumps(done[1]))
    own = report["steps"][0]
    (row,) = (row for row in own["rows"] if row["row"] == "best constant")
    row["calls"] = own["calls"] + 1
    more = sum(row["calls"] > own["calls"] for row in own["rows"])
    (axes,) = evidence_figure(report).axes
    faces = [container.lines[0].get_markerfacecolor() for container in axes.containers]
    assert faces.count("white") == more < len(own["rows"]) - 1
    handles, labels = axes.get_legend_handles_labels()
    assert labels == [f"needs {need}" for need in NEEDS]
    assert "white" not in [handle.lines[0].get_markerfacecolor() for handle in handles]


def test_all_k_are_told_in_one_table(done):
    first = done[1]["steps"][0]
    verdicts = dict(
        zip([choice["row"] for choice in first["choice"]], ("adds", "open"), strict=True)
    )
    again = [{**choice, "verdict": "takes"} for choice in first["choice"]]
    told = [{**choice, "verdict": verdicts[choice["row"]]} for choice in first["choice"]]
    steps = [{**first, "choice": told}, {**first, "steps": 7, "choice": again}]
    top = to_markdown({**done[1], "steps": steps}).split("## ")[0]
    assert f"solver: it adds something at K = {STEPS}; it is worse at K = 7." in top
    assert f"anything at K = {STEPS}; it is worse at K = 7." in top
    table = top[top.index("| composite over synchronous |") :].split("\n\n")[0].splitlines()
    assert table[0] == f"| composite over synchronous | K = {STEPS} | K = 7 |"
    rows = {row["row"]: row["metrics"]["composite"] for row in first["rows"]}
    told_rows = {line.split(" | ")[0].removeprefix("| "): line for line in table[2:]}
    assert [*told_rows] == [  # the best first, and synchronous is what they are compared with
        name for name in sorted(rows, key=lambda n: -rows[n]["difference"]) if name != "synchronous"
    ]
    for name, line in told_rows.items():
        assert line.count(difference("composite", rows[name])) == 2


def test_the_best_is_marked_where_the_intervals_tell():
    noise = np.random.default_rng(0).normal(size=64)
    scores = {"worst": noise, "better": noise + 1, "best": noise + 2}
    assert comparison.marks(scores, "composite") == {"best": "best"}
    assert comparison.marks(scores, "spectrum") == {"worst": "best"}  # an error
    like = np.random.default_rng(1).normal(size=64)
    tied = {"worst": noise, "b": noise + 3, "a": noise + 3 + 0.1 * (like - like.mean())}
    assert comparison.marks(tied, "composite") == {"a": "tied", "b": "tied"}
    assert comparison.marks({"a": noise, "b": noise}, "composite") == {}
    assert comparison.marks(scores, "sharpness") == {}


@pytest.mark.parametrize(
    ("name", "best", "end"),
    [
        ("best constant", "fixed:0.5", False),
        ("best constant", "fixed:1", False),  # there is no more
        ("best constant", "fixed:-0.5", True),
        ("best constant", "baseline", False),
        ("best constant with velocity scale", "combined:0.5/0.9", False),
        ("best constant with velocity scale", "combined:1/0.9", False),
        ("best constant with velocity scale", "combined:0.25/0.9", True),
        ("best constant with velocity scale", "combined:1/0.7", True),
        ("UniPC, best constant with velocity scale", "combined:0.5/0.9", False),
        ("DPM++(2M), best constant with velocity scale", "combined:0.75/0.85", True),
        ("best ramp or scaled schedule", "schedule:0/0.125/0.25/0.375/0.5/0.625/0.75", False),
        ("best ramp or scaled schedule", "spectral@1.5", False),
        ("detail boost, model", "model-boost:6", True),
    ],
)
def test_numbers_at_the_end_of_what_was_tried_are_told(name, best, end):
    (row,) = (row for row in rows(8, {}, FOUND, shifts=True) if row.name == name)
    (candidate,) = (c for c in row.candidates if c.policy == best)
    assert at_end(row, candidate) == end


def test_a_shift_at_the_end_of_what_was_tried_is_told():
    (row,) = (row for row in rows(8, {}, FOUND, shifts=True) if row.name == "shifted grid")
    own, *shifted = row.candidates
    assert [at_end(row, c) for c in shifted] == [True, *[False] * (len(shifted) - 2), True]
    assert not at_end(row, own)


def test_what_was_not_tuned_is_at_no_end():
    own = Candidate("scaled-schedule:0.5/0.9", 2)
    assert not at_end(Row("mean", "training", (own,), static=True), own)


def test_one_picture_tells_nothing():
    (one,) = all_paired([([1.0], [0.5])])
    (two,) = all_paired([([1.0, 1.0], [0.5, 0.6])])
    assert [comparison.interval_of(found)["verdict"] for found in (one, two)] == ["open", "adds"]
    assert difference("composite", comparison.interval_of(one)) == "+0.5000"


def test_half_of_the_candidates_go_on_with_twice_the_prompts():
    assert rungs(8, 128) == [(16, 8), (32, 4), (128, 2)]
    assert rungs(1, 128) == [(128, 1)]
    assert rungs(8, 10) == [(10, 8)]
    assert rung_pictures(8, 128) == 16 * 8 + 16 * 4 + 96 * 2


def test_what_cannot_be_is_refused(asked):
    with pytest.raises(InputError, match="there is no row 'best'"):
        Plan(asked.recipe, (3,), only=("best",)).rows(3, FOUND)
    with pytest.raises(InputError, match="ask for at most"):
        Plan(asked.recipe, (3,), limit=100_000).held_out  # noqa: B018
    options = {**dict.fromkeys(("distilled", "rewards", "set_metrics")), "solver": ()}
    for module in ("lifted", "=place", "name="):
        with pytest.raises(InputError, match="NAME=PLACE"):
            parse_plan("mini", "5", [module], reward_path=(), **options)
    with pytest.raises(InputError, match="is none of the modules"):
        parse_plan("mini", "5", (), reward_path=(), **{**options, "distilled": "mixed"})
    for solver in ("lifted", "lifted="):
        with pytest.raises(InputError, match="--solver is NAME=SOLVER"):
            parse_plan("mini", "5", ["lifted=D"], reward_path=(), **{**options, "solver": [solver]})
    for solver, of in (("mixed=unipc", "module 'mixed'"), ("lifted=uni", "solver 'uni'")):
        with pytest.raises(InputError, match=f"unknown {of}"):
            parse_plan("mini", "5", ["lifted=D"], reward_path=(), **{**options, "solver": [solver]})
    with pytest.raises(InputError, match="lifted is not for euler"):
        parse_plan(
            "mini", "5", ["lifted=D"], reward_path=(), **{**options, "solver": ["lifted=unipc"]}
        )
