"""What a training shows of itself, by value."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from asyncdiff_cli import render
from asyncdiff_cli.dashboard import BARS, Dashboard, bars, duration, summary


def iteration(number, seconds=2.0, **changes):
    return {
        "iteration": number,
        "steps": 4,
        "seconds": seconds,
        "images_per_second": 8.04,
        "shares": {"denoiser": 0.71, "decode": 0.1, "rewards": 0.05, "update": 0.14},
        "rewards": {"clip": {"raw": 0.25634, "std": 0.0123, "z": 1.5}},
        "composite": 1.5,
        "deviation": {"mean": [-0.5, 0.0, 0.5], "std": [0.1, 0.1, 0.1]},
        "alpha": [2.0, 2.0, 2.0],
        "beta": [2.0, 2.0, 2.0],
        "entropy": -0.1251,
        "approximate_kl": 0.00123,
        "clip_fraction": 0.25,
        "grad_norm": 0.4567,
        **changes,
    }


BASELINE = {"iteration": 0, "held_out": {"clip": 0.25, "noise": -3.0}}
EVALUATION = {
    "iteration": 2,
    "held_out": {
        "clip": {"mean": 0.26, "difference": 0.01, "low": -0.005, "high": 0.025, "n": 8},
        "noise": {"mean": -3.5, "difference": -0.5, "low": -0.75, "high": -0.25, "n": 8},
        "composite": {"mean": 0.5, "difference": 0.5, "low": 0.25, "high": 0.75, "n": 8},
    },
    "deviation": [0.1, 0.2, 0.3],
    "best": 2,
}


def printed(view):
    """A view as it is on a wide terminal."""
    console = Console(record=True, width=140, file=io.StringIO())
    console.print(view)
    return console.export_text()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([-1.0, 1.0], "-1.00 ▁█ +1.00"),
        ([0.0], "+0.00 ▅ +0.00"),
        ([-0.5, -0.2, 0.2, 0.5], "-0.50 ▃▄▅▆ +0.50"),
        ([-9.0, 9.0], "-9.00 ▁█ +9.00"),
    ],
)
def test_deviations_are_small_bars(values, shown):
    assert bars(values) == shown


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60))
def test_there_is_a_bar_per_value_and_higher_is_higher(values):
    row = bars(values).split()[1]
    assert len(row) == len(values)
    heights = [BARS.index(bar) for bar in row]
    assert [heights[i] for i in sorted(range(len(values)), key=values.__getitem__)] == sorted(
        heights
    )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (8.4, "8 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_as_people_write_them(seconds, shown):
    assert duration(seconds) == shown


def test_the_time_that_remains_is_that_of_recent_iterations():
    dashboard = Dashboard(total=100, done=10)
    assert dashboard.remaining is None
    dashboard.updated("evaluation", BASELINE)
    assert dashboard.remaining is None
    dashboard.updated("iteration", iteration(11, seconds=3.0))
    assert dashboard.remaining == 89 * 3.0
    dashboard.updated("iteration", iteration(12, seconds=1.0))
    assert dashboard.remaining == 88 * 2.0
    for number in range(13, 33):  # the first ones are forgotten
        dashboard.updated("iteration", iteration(number, seconds=0.5))
    assert dashboard.remaining == 68 * 0.5
    dashboard.updated("iteration", iteration(100))
    assert dashboard.remaining == 0


def test_an_iteration_as_a_line():
    assert summary("iteration", iteration(3), 10) == (
        "iteration 3 of 10: clip 0.2563; deviation -0.50 ▃▅▆ +0.50; 8.04 images/s"
    ).replace("▃▅▆", bars([-0.5, 0.0, 0.5]).split()[1])


def test_an_evaluation_as_a_line():
    assert summary("evaluation", BASELINE, 10) == (
        "iteration 0 of 10, held out: clip 0.2500, noise -3.0000"
    )
    assert summary("evaluation", EVALUATION, 10) == (
        "iteration 2 of 10, held out: clip 0.2600 +0.0100 [-0.0050, +0.0250],"
        " noise -3.5000 -0.5000 [-0.7500, -0.2500], composite 0.5000 +0.5000 [+0.2500, +0.7500]"
    )


def test_the_view_begins_before_there_is_anything_to_see():
    assert printed(Dashboard(10).updated("evaluation", BASELINE)).strip() == "iteration 0 of 10"


def test_the_view_shows_what_training_does():
    dashboard = Dashboard(10)
    dashboard.updated("evaluation", BASELINE)
    dashboard.updated("iteration", iteration(2))
    text = printed(dashboard.updated("evaluation", EVALUATION))
    lines = text.splitlines()
    assert lines[0] == "iteration 2 of 10, 8.0 images/s, 16 s left"
    words = [line.split() for line in lines if line.strip()]
    cells = {name: " ".join(rest) for name, *rest in words}
    assert cells["clip"] == "0.2563 0.0123 1.5000 0.2600 +0.0100 [-0.0050, +0.0250]"
    assert cells["noise"] == "-3.5000 -0.5000 [-0.7500, -0.2500]"
    assert cells["composite"] == "0.5000 +0.5000 [+0.2500, +0.7500]"
    assert f"deviation {bars([-0.5, 0.0, 0.5])}" in text
    assert "entropy -0.125   KL 1.2e-03   clipped 25%   gradient 0.46" in text
    assert "time denoiser 71%   decode 10%   rewards 5%   update 14%" in text
    assert "warning" not in text


def test_without_a_baseline_there_is_no_z_and_nothing_held_out():
    rewards = {"clip": {"raw": 0.25, "std": 0.5}}
    text = printed(Dashboard(10).updated("iteration", iteration(1, rewards=rewards)))
    assert ["clip", "0.2500", "0.5000"] in [line.split() for line in text.splitlines()]
    assert "None" not in text


def test_the_last_warning_stays_in_sight():
    dashboard = Dashboard(10)
    dashboard.updated("warning", {"iteration": 1, "warning": "the [noise] rose"})
    assert "warning: the [noise] rose" in printed(dashboard.updated("iteration", iteration(2)))


def shown(capsys, is_main=True, json_lines=False):
    """What a few events print where there is no terminal."""
    with render.training(10, 0, is_main, json_lines) as show:
        show("evaluation", BASELINE)
        show("iteration", iteration(1))
        show("warning", {"iteration": 1, "warning": "beware"})
    return capsys.readouterr()


def test_without_a_terminal_there_is_a_line_per_event(capsys):
    out, err = shown(capsys)
    assert out == ""
    assert err.splitlines() == [
        summary("evaluation", BASELINE, 10),
        summary("iteration", iteration(1), 10),
        "warning: beware",
    ]


def test_json_lines_are_events(capsys):
    import json

    out, err = shown(capsys, json_lines=True)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"event": "evaluation", **BASELINE},
        {"event": "iteration", **iteration(1)},
        {"event": "warning", "iteration": 1, "warning": "beware"},
    ]
    assert err == "warning: beware\n"


def test_other_processes_show_nothing(capsys):
    assert shown(capsys, is_main=False) == ("", "")
    assert shown(capsys, is_main=False, json_lines=True) == ("", "")


def test_on_a_terminal_the_view_is_live(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out, err = shown(capsys)
    assert out == ""
    assert "\x1b[" in err
    assert "iteration 1 of 10" in err
    assert "time denoiser 71%" in err
    assert "warning: beware" in err
