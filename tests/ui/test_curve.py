"""What the editor shows, and the policies that it makes; without gradio, and without drawing."""

import doctest

import pytest

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.policies.modules import MODULES
from asyncdiff_cli.engine.policies.specs import parse_policy, shipped_policies
from asyncdiff_cli.ui import curve
from asyncdiff_cli.ui.curve import policy_of, schedule_line


def test_examples():
    assert doctest.testmod(curve) == (0, 2)


@pytest.mark.parametrize("deviations", [(0.5, 0.0, -1.0), (0.1234,), (1e-7, 1.0)])
def test_a_drag_makes_the_policy_of_its_deviations(deviations):
    line = schedule_line(deviations)
    assert parse_policy(line, REGISTRY["mini"]).policy.deviations == deviations


def test_a_run_of_one_step_has_no_schedule():
    assert schedule_line(()) == "baseline"


def test_a_place_may_have_spaces_around_it():
    assert policy_of(" runs/tpm\n") == "learned:runs/tpm"


@pytest.mark.parametrize("name", REGISTRY)
def test_every_policy_that_is_offered_can_be_chosen(name):
    lines = shipped_policies(REGISTRY[name])
    assert {*lines} & {*MODULES} == {*REGISTRY[name].modules}
    labels = [parse_policy(line, REGISTRY[name]).label for line in lines]
    assert labels == lines
    assert {"baseline", "fixed:0.5", "spectral", "detail-daemon"} < set(lines)
