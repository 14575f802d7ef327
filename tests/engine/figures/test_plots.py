"""Figures by the values of what they draw; how they look was looked at."""

import csv
import dataclasses
import io
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.patches import StepPatch
from PIL import Image

from asyncdiff_cli.engine import AsyncDiffError, InputError
from asyncdiff_cli.engine.figures.histogram import BINS, histogram_csv, histogram_figure
from asyncdiff_cli.engine.figures.scaling import noise_figure, scaling_figure
from asyncdiff_cli.engine.figures.style import COLUMN, FORMATS, PAGE, figure_svg, save_figure
from asyncdiff_cli.engine.figures.training import training_figure
from tests.helpers.summaries import result, summary, swept

SPREAD = np.array([[-0.5, 0.0], [0.5, 0.125], [0.5, 0.25], [0.0, 0.125]])
"""Deviations of four images at two decisions, of the bound 0.5."""

TRAINING = [
    {"iteration": 0, "held_out": {"clip": 0.25, "noise": -1.0}},
    {"iteration": 1, "rewards": {"clip": {"raw": 0.2}}, "composite": -1.0,
     "deviation": {"mean": [0.0, 0.5]}},
    {"iteration": 2, "rewards": {"clip": {"raw": 0.3}}, "composite": 1.0,
     "deviation": {"mean": [0.25, 0.5, 0.75]}},
    {"iteration": 2, "held_out": {
        "clip": {"mean": 0.3, "difference": 0.05, "low": 0.01, "high": 0.07, "n": 4},
        "noise": {"mean": -1.5, "difference": -0.5, "low": -1.0, "high": -0.25, "n": 4},
        "composite": {"mean": 1.0, "difference": 1.0, "low": 0.5, "high": 2.0, "n": 4},
    }},
]  # fmt: skip

FIGURES = {
    "scaling": lambda: scaling_figure(swept()),
    "noise": lambda: noise_figure(swept()),
    "histogram": lambda: histogram_figure({"learned": (SPREAD, 0.5)}),
    "training": lambda: training_figure(TRAINING),
}


def charts(figure):
    """By what is on the y axis."""
    return {axes.get_ylabel(): axes for axes in figure.axes}


def series(axes):
    """By label: points and error bars of each direction, as (low, high) ends."""
    found = {}
    for drawn in axes.containers:
        line, _, bars = drawn.lines
        ends = [[(s[0].tolist(), s[1].tolist()) for s in bar.get_segments()] for bar in bars]
        found[drawn.get_label()] = [tuple(p) for p in line.get_xydata().tolist()], ends
    return found


def dashes(axes):
    """Heights of the dashed lines."""
    return [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_scaling_draws_means_over_gamma_from_the_baseline_on():
    axes = charts(scaling_figure(swept()))["CLIP score\n(cosine)"]
    points, _ = series(axes)["learned"]
    assert points == [(0, 0.25), (0.5, 0.26), (1, 0.27), (2, 0.28)]
    assert dashes(axes) == [0.25]


def test_bars_are_the_paired_interval_put_at_the_mean():
    """γ = 2: the baseline's mean is 0.25, the interval of the difference [0.02, 0.05]."""
    axes = charts(scaling_figure(swept()))["CLIP score\n(cosine)"]
    _, (bars,) = series(axes)["learned"]
    assert bars[3] == ([2, pytest.approx(0.27)], [2, pytest.approx(0.30)])
    assert bars[0] == ([0, 0.25], [0, 0.25])


def test_a_lifted_module_is_a_point_of_its_own():
    figure = scaling_figure(swept())
    points, _ = series(charts(figure)["CLIP score\n(cosine)"])["lifted bound"]
    assert points == [(1, 0.29)]
    assert legend(figure) == ["baseline", "learned", "lifted bound"]


def test_a_lifted_module_that_is_scaled_itself_is_a_line():
    found = summary(
        result("baseline", clip=0.2),
        *(result("lifted", gamma, clip=(0.3, 0.1, 0.0, 0.2)) for gamma in (0.5, 1.0)),
    )
    points, _ = series(scaling_figure(found).axes[0])["lifted bound"]
    assert [x for x, _ in points] == [0, 0.5, 1]


def test_fixed_deviations_are_one_line_over_the_deviation():
    found = summary(
        result("baseline", clip=0.2),
        *(result(f"fixed:{d}", deviation=d, clip=(d, 0.0, 0.0, 0.0)) for d in (0.5, -0.25)),
        result("learned", 2.0, deviation=0.125, clip=(0.3, 0.1, 0.0, 0.2)),
    )
    drawn = series(scaling_figure(found, "deviation").axes[0])
    assert drawn["fixed"][0] == [(-0.25, -0.25), (0, 0.2), (0.5, 0.5)]
    assert drawn["learned"][0] == [(0, 0.2), (0.25, 0.3)]  # γ·D


def several_steps():
    return summary(
        *(
            result(policy, gamma, steps=steps, clip=(steps + gamma, gamma, gamma, gamma),
                   noise=(-gamma, -gamma, -gamma, -gamma))
            for steps in (8, 4)
            for policy, gamma in (("baseline", 1.0), ("learned", 1.0), ("learned", 2.0))
        )
    )  # fmt: skip


def test_several_numbers_of_steps_are_lines_with_baselines_of_their_own():
    figure = scaling_figure(several_steps())
    axes = figure.axes[0]
    drawn = series(axes)
    assert drawn["learned, 8 steps"][0] == [(0, 9), (1, 9), (2, 10)]
    assert drawn["learned, 4 steps"][0] == [(0, 5), (1, 5), (2, 6)]
    assert dashes(axes) == [9, 5]
    assert legend(figure) == ["baseline", "learned, 8 steps", "learned, 4 steps"]


def test_over_steps_each_setting_is_a_line_and_so_is_the_baseline():
    axes = scaling_figure(several_steps(), "steps").axes[0]
    drawn = series(axes)
    assert drawn["learned"][0] == [(4, 5), (8, 9)]
    assert drawn["learned, γ = 2"][0] == [(4, 6), (8, 10)]
    assert drawn["baseline"] == ([(4, 5), (8, 9)], [])
    assert [text.get_text() for text in axes.get_xticklabels()] == ["4", "8"]
    assert "baseline" not in series(noise_figure(several_steps(), "steps").axes[0])


def test_series_differ_in_marker_and_colour():
    many = [result(f"fixed:{d / 10}", clip=(d, 0.0, 0.0, 0.0)) for d in range(20)]
    axes = scaling_figure(summary(result("baseline", clip=0.0), *many)).axes[0]
    looks = {(c.lines[0].get_color(), c.lines[0].get_marker()) for c in axes.containers}
    assert len(looks) == 20


@pytest.mark.parametrize("count", [1, 4, 6])
def test_there_is_a_chart_per_metric(count):
    names = ("image_reward", "hpsv2", "clip", "pickscore", "mini_clip", "noise")[:count]
    found = summary(*(result(p, **dict.fromkeys(names, (1.0, 0.0, 0.0, 0.0)))
                      for p in ("baseline", "learned")))  # fmt: skip
    figure = scaling_figure(found)
    assert list(charts(figure)) == ["ImageReward", "HPSv2\n(cosine)", "CLIP score\n(cosine)",
                                    "PickScore", "mini_clip\n(cosine)",
                                    "residual noise\n(guard, −σ of 255)"][:count]  # fmt: skip
    assert figure.get_figwidth() == (COLUMN if count == 1 else PAGE)
    assert scaling_figure(found, width=COLUMN).get_figwidth() == COLUMN


def test_noise_draws_gains_over_the_guard():
    figure = noise_figure(swept())
    (axes,) = figure.axes
    points, (across, up) = series(axes)["learned"]
    assert points == [(0, 0), (-0.125, 0.01), (-0.25, 0.02), (-0.5, 0.03)]
    assert across[3] == ([pytest.approx(-0.6), 0.03], [pytest.approx(-0.25), 0.03])
    assert up[3] == ([-0.5, pytest.approx(0.02)], [-0.5, pytest.approx(0.05)])
    assert series(axes)["lifted bound"][0] == [(-1, 0.04)]
    assert [text.get_text() for text in axes.texts] == ["0.5", "1", "2"]
    assert [text.xy for text in axes.texts] == points[1:]
    assert "← noisier" in figure.get_supxlabel()


def test_noise_needs_the_guard_and_something_else():
    with pytest.raises(InputError, match="noise and another reward, not clip"):
        noise_figure(summary(result("baseline", clip=1.0)))
    with pytest.raises(InputError, match="not noise"):
        noise_figure(summary(result("baseline", noise=1.0)))


@pytest.mark.parametrize("figure", [scaling_figure, noise_figure])
def test_an_unknown_axis_is_refused(figure):
    with pytest.raises(InputError, match="did you mean 'gamma'"):
        figure(swept(), "gama")


def test_a_baseline_alone_can_be_drawn():
    alone = summary(result("baseline", clip=0.25, noise=-1.0))
    for axis in ("gamma", "deviation", "steps"):
        figure_svg(scaling_figure(alone, axis))
        figure_svg(noise_figure(alone, axis))


def heights(axes):
    """Of each row, those of its bins above its base."""
    ridges = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
    return [patch.get_data().values - patch.get_data().baseline for patch in ridges]


def test_a_histogram_has_a_row_per_decision_as_high_as_its_fullest_bin():
    figure = histogram_figure({"learned": (SPREAD, 0.5)})
    (axes,) = figure.axes
    first, second = heights(axes)
    assert len(first) == BINS == 41
    assert np.flatnonzero(first).tolist() == [0, 20, 40]
    assert first[[0, 20, 40]] == pytest.approx([0.425, 0.425, 0.85])
    assert np.flatnonzero(second).tolist() == [20, 25, 30]
    assert second[[20, 25, 30]] == pytest.approx([0.425, 0.85, 0.425])
    assert axes.get_xlim() == (-0.5, 0.5)


def test_a_histogram_marks_means_and_writes_shares_at_the_bound():
    (axes,) = histogram_figure({"learned": (SPREAD, 0.5)}).axes
    means = [line.get_xdata().tolist() for line in axes.lines if line.get_color() == "black"]
    assert means == [[0.125, 0.125], [0.125, 0.125]]
    assert [text.get_text() for text in axes.texts] == ["75%", "0%", "at bound"]
    assert axes.get_title() == "learned\nmean D +0.125"


def test_a_histogram_says_which_decisions_are_inert():
    """The last of Stable Diffusion 3.5's 15 steps begins at t = 0.0089, by its scheduler."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(15)
    sigmas = scheduler.sigmas.tolist()
    deviations = np.zeros((4, 14), np.float32)
    run = dataclasses.replace(result("learned"), deviations=deviations, grid=tuple(sigmas[:-1]))
    assert run.step_sizes == pytest.approx(-np.diff(sigmas)[1:])
    (axes,) = histogram_figure({"a": run}).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [*map(str, range(1, 14)), "14 inert"]
    heun = dataclasses.replace(run, grid=(1.0, 0.5, 0.5))  # a step of Heun's evaluates twice
    assert heun.step_sizes.tolist() == [0.5, 0.5]


def test_a_histogram_of_a_result_has_its_bound():
    run = result("lifted", bound=1.0, steps=5, deviation=1.0)
    (axes,) = histogram_figure({"a": run}).axes
    assert axes.get_xlim() == (-1, 1)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["1", "2", "3", "4"]
    assert [text.get_text() for text in axes.texts][:4] == ["100%"] * 4


def test_without_a_bound_there_is_no_share_at_it():
    (axes,) = histogram_figure({"detail-daemon": (3 * SPREAD, float("inf"))}).axes
    assert axes.get_xlim()[1] >= 1.5
    assert not axes.texts
    rows = list(csv.DictReader(io.StringIO(histogram_csv({"a": (3 * SPREAD, float("inf"))}))))
    assert (rows[0]["at_lower"], rows[0]["at_upper"]) == ("", "")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({}, "no run"),
        ({"a": (np.zeros((4, 0)), 0.5)}, r"a has no decisions: its deviations are \[4, 0\]"),
        ({"a": (np.zeros((0, 3)), 0.5)}, "no decisions"),
        ({"a": (np.zeros(3), 0.5)}, "no decisions"),
    ],
)
def test_there_is_something_to_count(runs, message):
    with pytest.raises(InputError, match=message):
        histogram_figure(runs)


@given(arrays(np.float32, (5, 2), elements=st.floats(-0.5, 0.5, width=32)))
def test_a_histogram_s_csv_counts_every_image_once(deviations):
    rows = list(csv.DictReader(io.StringIO(histogram_csv({"a": (deviations, 0.5)}))))
    assert len(rows) == 2 * BINS
    for step in ("1", "2"):
        own = [row for row in rows if row["step"] == step]
        assert sum(int(row["count"]) for row in own) == 5
        assert [row["bin_low"] for row in own[1:]] == [row["bin_high"] for row in own[:-1]]


def test_a_histogram_s_csv_to_the_letter():
    lines = histogram_csv({"learned, γ = 2": (SPREAD, 0.5)}).splitlines()
    assert lines[0] == "run,step,n,mean,std,at_lower,at_upper,bin_low,bin_high,count"
    assert lines[1].startswith('"learned, γ = 2",1,4,0.125,0.414578098794425,0.25,0.5,-0.5,-0.475')
    assert lines[1].endswith(",1")
    assert lines[41].endswith(",0.5,2")
    assert lines[42].startswith('"learned, γ = 2",2,4,0.125,0.0883883476483184')


def test_training_draws_rewards_evaluations_and_deviations():
    figure = training_figure(TRAINING)
    found = charts(figure)
    clip = found["CLIP score\n(cosine)"]
    (line,) = (line for line in clip.lines if line.get_label() == "training, running mean")
    assert line.get_xydata().tolist() == [[1, 0.2], [2, 0.3]]
    assert dashes(clip) == [0.25]
    points, (bars,) = series(clip)["held out, 95 % interval"]
    assert points == [(2, 0.3)]
    assert bars == [([2, pytest.approx(0.26)], [2, pytest.approx(0.32)])]
    assert dashes(found["composite\n(in σ of the baseline)"]) == [0]
    noise = found["residual noise\n(guard, −σ of 255)"]
    assert dashes(noise) == [-1.0]
    assert "training, running mean" not in {line.get_label() for line in noise.lines}
    steps = [line.get_xydata().tolist() for line in found["mean deviation\n(grid intervals)"].lines]
    assert steps == [[[1, 0], [2, 0.25]], [[1, 0.5], [2, 0.5]], [[2, 0.75]]]


def test_many_iterations_are_averaged():
    rows = [
        {"iteration": n, "rewards": {"clip": {"raw": n % 2}}, "deviation": {"mean": [0.5]}}
        for n in range(1, 401)
    ]
    clip, deviation, _ = training_figure(rows).axes
    mean = clip.lines[0].get_ydata()
    assert len(mean) == 400
    assert mean == pytest.approx(np.full(400, 0.5), abs=0.06)
    assert deviation.lines[0].get_ydata() == pytest.approx(np.full(400, 0.5))


def test_a_training_that_has_not_begun_is_refused():
    with pytest.raises(InputError, match="no iteration to plot yet"):
        training_figure(TRAINING[:1])


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_written_and_equal_data_give_equal_bytes(name, tmp_path):
    for suffix in FORMATS:
        paths = [tmp_path / "new" / f"{n}.{suffix}" for n in (1, 2)]
        for path in paths:
            save_figure(FIGURES[name](), path)
        first, second = (path.read_bytes() for path in paths)
        assert first == second
        assert len(first) > 1000
    width = FIGURES[name]().get_figwidth()
    with Image.open(tmp_path / "new" / "1.png") as image:
        assert image.width == round(300 * width)
        assert "Software" not in image.info
    assert b"<dc:date>" not in (tmp_path / "new" / "1.svg").read_bytes()


def test_a_suffix_may_be_in_capitals_and_another_one_is_refused(tmp_path):
    save_figure(FIGURES["histogram"](), tmp_path / "a.PNG")
    assert (tmp_path / "a.PNG").read_bytes().startswith(b"\x89PNG")
    for name in ("a.jpg", "a", "png"):
        with pytest.raises(InputError, match=r"\.png, \.svg or \.pdf"):
            save_figure(FIGURES["histogram"](), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.PNG"]


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AsyncDiffError, match="cannot write"):
        save_figure(FIGURES["histogram"](), tmp_path / "file" / "a.png")


def test_svg_can_be_embedded():
    text = figure_svg(FIGURES["noise"]())
    assert text.startswith("<svg")
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<text" not in text


def test_dollars_in_names_are_no_tex():
    dollars = "learned:$\\frac{$"
    found = summary(result("baseline", clip=0.2), result(dollars, clip=(0.3, 0.1, 0.0, 0.2)))
    assert figure_svg(scaling_figure(found)).startswith("<svg")
    assert figure_svg(histogram_figure({dollars: (SPREAD, 0.5)})).startswith("<svg")


def test_nothing_of_matplotlib_is_changed():
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False}):
        figure = FIGURES["scaling"]()
        own = figure_svg(figure)
        assert matplotlib.rcParams["font.size"] == 30
    assert own == figure_svg(FIGURES["scaling"]())
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_comes_with_plots_alone_and_pyplot_not_at_all():
    code = (
        "import sys, asyncdiff_cli.engine.evaluation.tables as _\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import asyncdiff_cli.engine.figures.style as _\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
