"""Who draws what: every random number belongs to its trajectory, wherever and with whom it runs."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from asyncdiff_cli.engine import AsyncDiffError, backbone_from_pipeline
from asyncdiff_cli.engine.drawing.canvas import BatchSize, Canvas, Stopwatch
from asyncdiff_cli.engine.drawing.seeds import noise_seed
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet
from asyncdiff_cli.engine.training.rollout import (
    dealt,
    number_of_steps,
    plan_iteration,
    roll_out,
)
from asyncdiff_cli.engine.training.state import new_tpm
from benchmarks.calls import counted
from tests.conftest import quiet, tiny_flux, tiny_sd3
from tests.helpers.rounding import assert_rounded, terms
from tests.helpers.training import small_recipe

PROMPTS = PromptSet("some", "train", tuple(f"prompt {i}" for i in range(7)))
CPU = torch.device("cpu")


def recipe(**changes):
    return small_recipe("sd3", **changes)


@pytest.fixture(scope="module", params=[tiny_sd3, tiny_flux], ids=["sd3", "flux"])
def canvas(request):
    return Canvas(backbone_from_pipeline(quiet(request.param())), size=16)


def moved(canvas, wanted):
    """A module whose answers depend on what it sees."""
    tpm = new_tpm(wanted, canvas.backbone)
    torch.manual_seed(1)
    with torch.no_grad():
        tpm.head[-1].weight.normal_(std=0.5)
    return tpm


def drawn(canvas, wanted, trajectories, batch, iteration=0):
    tpm = moved(canvas, wanted)
    return roll_out(
        canvas, tpm, trajectories, wanted, iteration, BatchSize(batch), Stopwatch(CPU)
    )  # fmt: skip


def terms_of(canvas, wanted):
    """What is added up on the way to the last decision."""
    return 3 * (terms(canvas.backbone.pipe.transformer) + terms(moved(canvas, wanted)))


def assert_same_images(ours, theirs):
    """Up to one of 256 levels, which rounding can turn."""
    for one, other in zip(ours, theirs, strict=True):
        a, b = (torch.frombuffer(bytearray(i.tobytes()), dtype=torch.uint8) for i in (one, other))
        assert (a.int() - b.int()).abs().max() <= 1


@given(
    seed=st.integers(0, 2**32),
    iteration=st.integers(0, 10**6),
    groups=st.integers(1, 4),
    noises=st.sampled_from([None, 1, 2, 4]),
)
@hypothesis_settings(max_examples=30)
def test_a_plan_is_a_function_of_seed_and_iteration(seed, iteration, groups, noises):
    wanted = recipe(seed=seed, prompts_per_iteration=groups, noises_per_prompt=noises)
    plan = plan_iteration(wanted, PROMPTS, iteration)
    assert plan == plan_iteration(wanted, PROMPTS, iteration)
    assert [t.index for t in plan] == list(range(4 * groups))
    for group in range(groups):
        members = [t for t in plan if t.group == group]
        assert {t.prompt for t in members} == {PROMPTS.at(iteration * groups + group, seed)}
        assert len(members) == 4
        assert len({t.noise for t in members}) == (noises or 4)
        assert {sum(t.noise == m.noise for t in members) for m in members} == {4 // (noises or 4)}
    assert len({t.noise for t in plan}) == groups * (noises or 4)


def test_iterations_seeds_and_streams_share_no_noise():
    plans = [
        plan_iteration(recipe(seed=seed), PROMPTS, iteration)
        for seed in (1, 2)
        for iteration in range(20)
    ]
    noises = [t.noise for plan in plans for t in plan]
    noises += [noise_seed(1, stream, 0) for stream in range(4)]
    assert len(set(noises)) == len(noises)
    assert all(0 <= noise < 2**63 for noise in noises)


def test_iterations_read_the_prompts_one_after_the_other():
    wanted = recipe(prompts_per_iteration=2)
    read = [t.prompt for n in range(7) for t in plan_iteration(wanted, PROMPTS, n)[:2]]
    assert read == [PROMPTS.at(n, wanted.seed) for n in range(14)]


def test_the_number_of_steps_is_fixed_or_of_its_range():
    assert {number_of_steps(recipe(), n) for n in range(20)} == {3}
    wanted = recipe(step_range=[2, 5])
    steps = [number_of_steps(wanted, n) for n in range(60)]
    assert set(steps) == {2, 3, 4, 5}
    assert steps == [number_of_steps(wanted, n) for n in range(60)]
    assert steps != [number_of_steps(recipe(step_range=[2, 5], seed=1), n) for n in range(60)]


def test_the_batch_size_does_not_matter(canvas):
    wanted = recipe(group_size=5, prompts_per_iteration=2)
    plan = plan_iteration(wanted, PROMPTS, 3)
    whole = drawn(canvas, wanted, plan, batch=16)
    assert whole.ratios.shape == (2, 10)
    assert whole.deviations.shape == (10, 2)
    for batch in (1, 2):
        parts = drawn(canvas, wanted, plan, batch=batch)
        for ours, theirs in (
            (parts.ratios, whole.ratios),
            (parts.deviations, whole.deviations),
            (parts.seen.latents, whole.seen.latents),
        ):
            assert_rounded(ours, theirs, terms_of(canvas, wanted))
        assert_same_images(parts.images, whole.images)


def test_neither_does_who_draws_the_others(canvas):
    wanted = recipe(group_size=6)
    plan = plan_iteration(wanted, PROMPTS, 0)
    whole = drawn(canvas, wanted, plan, batch=16)
    for first in (0, 1):
        half = drawn(canvas, wanted, plan[first::2], batch=16)
        assert_rounded(half.ratios, whole.ratios[:, first::2], terms_of(canvas, wanted))
        assert_same_images(half.images, whole.images[first::2])


def test_draws_differ_between_trajectories_of_the_same_noise(canvas):
    wanted = recipe(noises_per_prompt=1)
    found = drawn(canvas, wanted, plan_iteration(wanted, PROMPTS, 0), batch=4)
    assert len({t.noise for t in found.trajectories}) == 1
    assert len(set(found.ratios[0].tolist())) == 4
    assert len({image.tobytes() for image in found.images}) > 1
    again = drawn(canvas, wanted, plan_iteration(wanted, PROMPTS, 0), batch=4, iteration=1)
    assert not torch.equal(found.ratios, again.ratios)


@pytest.mark.parametrize(("noises", "batch", "firsts"), [(1, 4, 2), (2, 16, 4), (1, 3, 4)])
def test_a_group_shares_the_first_evaluation_of_each_noise(canvas, noises, batch, firsts):
    """Two groups of four: a batch of three cuts both, which is one evaluation more of each."""
    wanted = recipe(noises_per_prompt=noises, prompts_per_iteration=2)
    mine = dealt(plan_iteration(wanted, PROMPTS, 0), 0, 1)
    transformer = canvas.backbone.pipe.transformer
    with counted(transformer) as rows:
        shared = drawn(canvas, wanted, mine, batch)
    with counted(transformer) as whole:
        every = drawn(replace(canvas, share_first=False), wanted, mine, batch)
    branches = sum(whole) // (8 * 3)
    assert sum(whole) == branches * 8 * 3
    assert sum(rows) == branches * (firsts + 8 * 2)
    for ours, theirs in (
        (shared.ratios, every.ratios),
        (shared.seen.velocity, every.seen.velocity),
        (shared.seen.latents, every.seen.latents),
    ):
        assert_rounded(ours, theirs, terms_of(canvas, wanted))
    assert_same_images(shared.images, every.images)


@given(processes=st.integers(1, 5), noises=st.sampled_from([None, 1, 2]))
@hypothesis_settings(max_examples=10)
def test_trajectories_are_dealt_out_with_those_that_begin_alike_as_neighbours(processes, noises):
    wanted = recipe(prompts_per_iteration=3, noises_per_prompt=noises)
    everyone = plan_iteration(wanted, PROMPTS, 1)
    hands = [dealt(everyone, process, processes) for process in range(processes)]
    assert sorted((t for hand in hands for t in hand), key=lambda t: t.index) == everyone
    for hand in hands:
        beginnings = [(t.prompt, t.noise) for t in hand]
        assert len(list(itertools.groupby(beginnings))) == len(set(beginnings))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_the_deviation_is_that_of_the_ratio(canvas):
    wanted = recipe(bound=1.0)
    found = drawn(canvas, wanted, plan_iteration(wanted, PROMPTS, 0), batch=4)
    assert torch.allclose(found.deviations, 2 * (found.ratios.T - 0.5))
    assert found.seen.latents.shape[:2] == (2, 4)


def test_a_process_without_a_trajectory_draws_nothing(canvas):
    found = drawn(canvas, recipe(), [], batch=4)
    assert (found.images, found.seen) == ([], None)
    assert found.ratios.shape == (2, 0)
    assert found.deviations.shape == (0, 2)


def test_prompts_are_encoded_one_by_one(canvas):
    """So that what a prompt becomes does not depend on its neighbours."""
    alone = canvas.encode(["a cat"])["a cat"]
    among = canvas.encode(["a very long prompt about a dog", "a cat", "a cat"])
    assert set(among) == {"a very long prompt about a dog", "a cat"}
    for name, value in vars(alone).items():
        other = vars(among["a cat"])[name]
        assert value is other is None or torch.allclose(value, other, atol=1e-6)


def test_a_batch_is_halved_down_to_one():
    size = BatchSize(16)
    for tried, now in ((16, 8), (7, 4), (3, 2), (2, 1)):
        size.halve(tried)
        assert size.value == now
    assert len(size.warnings) == 4
    with pytest.raises(AsyncDiffError, match="out of memory with one image at a time: use a small"):
        size.halve(1)


def test_a_stopwatch_adds_up_by_name():
    clock = Stopwatch(CPU)
    for name in ("a", "b", "a"):
        with clock(name):
            pass
    assert list(clock.seconds) == ["a", "b"]
    assert all(seconds > 0 for seconds in clock.seconds.values())
