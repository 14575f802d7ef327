"""Policies as they are written on a command line."""

import contextlib
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdiff_cli.engine import (
    REGISTRY,
    Combined,
    DetailDaemon,
    EpsilonScaling,
    FixedDeviation,
    InputError,
    LearnedDeviation,
    ModelDetailBoost,
    NoiseShift,
    SamplerDetailBoost,
    ScaledSchedule,
    ScheduledDeviation,
    Synchronous,
    TimeShift,
    VelocityScale,
    parse_policy,
    policy_from_dict,
)
from asyncdiff_cli.engine.policies.specs import (
    check_policy_of,
    load_learned,
    parse_policies,
    read_policy,
)
from asyncdiff_cli.engine.policies.table import POLICIES
from tests.helpers.modules import tiny

SD35 = REGISTRY["sd35"]
inside = st.floats(-1, 1)


@pytest.mark.parametrize(
    ("text", "label", "policy", "gamma"),
    [
        ("baseline", "baseline", Synchronous(), 1),
        ("synchronous@0", "baseline", Synchronous(), 0),
        ("fixed:0.50", "fixed:0.5", FixedDeviation(0.5), 1),
        ("fixed:1@1.50", "fixed:1", FixedDeviation(1), 1.5),
        ("fixed:-0.0", "fixed:0", FixedDeviation(0), 1),
        ("schedule:0.5/.2/0", "schedule:0.5/0.2/0", ScheduledDeviation([0.5, 0.2, 0]), 1),
        ("detail-daemon", "detail-daemon", DetailDaemon(), 1),
        ("detail-daemon:0.10@-1", "detail-daemon", DetailDaemon(), -1),
        ("epsilon-scaling", "epsilon-scaling", EpsilonScaling(), 1),
        ("epsilon-scaling:1.02@2", "epsilon-scaling:1.02", EpsilonScaling(1.02), 2),
        ("noise-shift:1.50", "noise-shift:1.5", NoiseShift(1.5), 1),
        ("model-boost", "model-boost", ModelDetailBoost(), 1),
        ("sampler-boost:-0.5", "sampler-boost:-0.5", SamplerDetailBoost(-0.5), 1),
        ("detail-daemon:0.25", "detail-daemon:0.25", DetailDaemon(0.25), 1),
        ("velocity-scale", "velocity-scale", VelocityScale(0.9), 1),
        ("velocity-scale:1.1", "velocity-scale:1.1", VelocityScale(1.1), 1),
        ("time-shift", "time-shift", TimeShift(), 1),
        (" time-shift:1 ", "time-shift:1", TimeShift(1), 1),
        ("combined:.5/0.90", "combined:0.5/0.9", Combined(0.5, 0.9), 1),
        (
            "scaled-schedule:.5/0.90/0/1@2",
            "scaled-schedule:0.5/0.9/0/1",
            ScaledSchedule([0.5, 0], [0.9, 1]),
            2,
        ),
    ],
)
def test_what_is_written_is_what_is_made(text, label, policy, gamma):
    assert parse_policy(text, SD35) == (label, policy, gamma)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fixd:0.5", "unknown policy 'fixd'; did you mean 'fixed'"),
        ("", "unknown policy ''"),
        ("fixed", "policy fixed needs a value, such as fixed:0.5"),
        ("fixed:", "policy fixed needs a value"),
        ("fixed:x", "policy fixed: 'x' is not a number"),
        ("fixed:1.5", r"policy fixed: deviation 1.5 is outside \[-1, 1\]"),
        ("fixed:nan", "policy fixed: deviation nan is outside"),
        ("fixed:0.5/0.5", "policy fixed takes one number, such as fixed:0.5, not '0.5/0.5'"),
        ("schedule:0.5//1", "policy schedule: '' is not a number"),
        ("schedule:2", "policy schedule: deviation 2 is outside"),
        ("baseline:1", "policy baseline takes no value"),
        ("epsilon-scaling:2", r"policy epsilon-scaling: scale 2 is outside \[0.5, 1.5\]"),
        ("noise-shift", "policy noise-shift needs a value, such as noise-shift:1.5"),
        ("model-boost:101", r"policy model-boost: weight 101 is outside \[-100, 100\]"),
        ("detail-daemon:9", r"policy detail-daemon: amount 9 is outside \[-1, 1\]"),
        ("detail-daemon:", "policy detail-daemon needs a value"),
        ("velocity-scale:2", r"policy velocity-scale: scale 2 is outside \[0.5, 1.5\]"),
        ("time-shift:-1", r"policy time-shift: window -1 is outside \[0, 1\]"),
        ("combined:0.5", "policy combined takes 2 numbers, such as combined:0.5/0.9, not '0.5'"),
        ("combined", "policy combined needs a value"),
        ("scaled-schedule:0.5/0.9/0", "policy scaled-schedule takes 2 numbers for each decision"),
        ("scaled-schedule:0.5", "policy scaled-schedule takes 2 numbers for each decision"),
        ("scaled-schedule:0.5/2", r"policy scaled-schedule: scale 2 is outside \[0.5, 1.5\]"),
        ("calibrated", "policy calibrated needs a schedule file, such as calibrated:FILE.json"),
        ("calibrated:0.5", "policy calibrated needs a schedule file"),
        ("calibrated:nowhere.json", "cannot read nowhere.json"),
        ("fixed:0.5@", "policy 'fixed:0.5@': gamma is a number, not ''"),
        ("fixed:0.5@x", "gamma is a number, not 'x'"),
        ("fixed:0.5@inf", "gamma is a finite number, not inf"),
        ("fixed:0.5@1@2", "policy 'fixed:0.5@1@2' has two gammas"),
        ("learned:x@1@2", "policy 'learned:x@1@2' has two gammas"),
        ("learned:a\nb", r"policy learned: 'a\\nb' is not a place"),
        ("learned", "no learned module is shipped for sd35: .* or give learned:DIR"),
        ("lifted@2", "no lifted module is shipped for sd35: .* or give lifted:DIR"),
        ("learned:", "policy learned: there is nothing after the colon"),
        ("learned:nowhere", "there is no directory nowhere"),
    ],
)
def test_what_cannot_be_gets_one_line(text, line):
    with pytest.raises(InputError, match=line) as caught:
        parse_policy(text, SD35)
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=20)
    | st.tuples(st.sampled_from(sorted(POLICIES)), st.text(max_size=9)).map(":".join)
    | st.tuples(st.sampled_from(sorted(POLICIES)), st.text("0159./@-", max_size=9)).map(":".join)
)
def test_any_text_is_a_policy_or_one_line(text):
    found = []
    try:
        found.append(read_policy(text).label)
    except InputError as error:
        found.append(str(error))
    else:
        assert read_policy(found[0]).label == found[0]
    assert "\n" not in found[0]


@given(
    st.sampled_from(
        [
            "fixed",
            "schedule",
            "detail-daemon",
            "combined",
            "velocity-scale",
            "spectral",
            "scaled-schedule",
        ]
    ),
    st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_label_makes_the_same_policy(name, numbers, gamma):
    text = f"{name}:{'/'.join(map(repr, numbers))}" + ("" if gamma is None else f"@{gamma!r}")
    with contextlib.suppress(InputError):
        label, policy, found = parse_policy(text, SD35)
        assert found == (1 if gamma is None else gamma)
        assert parse_policy(label, SD35) == (label, policy, 1)
        assert policy_from_dict(policy.to_dict()) == policy


@pytest.fixture
def modules(tmp_path):
    """A directory of a module of each kind; one name holds an @."""
    tiny(bound=0.5).save_pretrained(tmp_path / "half")
    tiny(bound=1.0, actions=("deviation", "scale")).save_pretrained(tmp_path / "both")
    tiny(bound=1.0).save_pretrained(tmp_path / "l@1ifted")
    yield tmp_path
    load_learned.cache_clear()


def test_modules_by_their_directories(modules):
    label, policy, gamma = parse_policy(f"learned:{modules}/half@2", SD35)
    assert (label, gamma) == (f"learned:{modules}/half", 2)
    assert isinstance(policy, LearnedDeviation)
    assert (policy.bound, policy.source) == (0.5, f"{modules}/half")
    assert parse_policy(f"learned:{modules}/l@1ifted", SD35).policy.bound == 1
    label, policy, gamma = parse_policy(f"lifted:{modules}/l@1ifted", SD35)
    assert (label, policy.bound, gamma) == (f"lifted:{modules}/l@1ifted", 1, 1)


def test_a_lifted_module_has_the_bound_1(modules):
    with pytest.raises(InputError, match=r"has the bound 0.5.*name it learned:"):
        parse_policy(f"lifted:{modules}/half", SD35)


def test_a_joint_module_decides_more_than_the_deviation(modules):
    assert parse_policy(f"joint:{modules}/both", SD35).label == f"joint:{modules}/both"
    alone = "decides deviation alone.*name it learned:"
    with pytest.raises(InputError, match=alone):
        parse_policy(f"joint:{modules}/half", SD35)
    with pytest.raises(InputError, match=alone):
        check_policy_of(read_policy(f"joint:{modules}/half"), SD35)


def test_shipped_modules_are_found_again_by_their_backbones_name(modules, monkeypatch):
    own = {"learned": modules / "half", "lifted": modules / "l@1ifted", "joint": modules / "both"}
    entry = replace(REGISTRY["mini"], modules=own)
    monkeypatch.setitem(REGISTRY, "mini", entry)
    learned, lifted, joint = (parse_policy(name, entry) for name in own)
    assert (learned.label, learned.policy.source) == ("learned", "mini")
    assert (lifted.label, lifted.policy.source) == ("lifted", "mini:lifted")
    assert lifted.policy.bound == 1
    assert (joint.label, joint.policy.source) == ("joint", "mini:joint")
    assert joint.policy.tpm.actions == ("deviation", "scale")
    assert policy_from_dict(lifted.policy.to_dict()) == lifted.policy


def test_lists():
    found = parse_policies("baseline, fixed:0.5@2,fixed:0.5,detail-daemon", SD35)
    assert [(each.label, each.gamma) for each in found] == [
        ("baseline", 1),
        ("fixed:0.5", 2),
        ("fixed:0.5", 1),
        ("detail-daemon", 1),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fixed:0.5,baseline,fixed:.50@1", "policy 'fixed:.50@1' is asked for twice"),
        ("baseline,synchronous", "policy 'synchronous' is asked for twice"),
        ("baseline,", "unknown policy ''"),
        ("", "unknown policy ''"),
    ],
)
def test_bad_lists(text, line):
    with pytest.raises(InputError, match=line):
        parse_policies(text, SD35)


def test_reading_needs_no_torch():
    code = (
        "import sys; from asyncdiff_cli.engine.drawing.request import parse_request;"
        " parse_request(prompts=['x'], policy='detail-daemon:0.2@2');"
        " sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
