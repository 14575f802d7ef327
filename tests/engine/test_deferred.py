"""Checks that do not wait for a GPU."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from asyncdiff_cli.engine import AsyncDiffError, LearnedDeviation, TimestepPredictionModule
from asyncdiff_cli.engine.deferred import DeferredChecks, is_finite
from tests.conftest import make_case


class Answers(TorchDispatchMode):
    """While entered, the numbers that are read of tensors without data are these."""

    def __init__(self, *answers: bool) -> None:
        super().__init__()
        self.answers = list(answers)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            assert not args[0].is_cuda
            return self.answers.pop(0)
        return func(*args, **(kwargs or {}))


def named(text):
    return lambda: AsyncDiffError(text)


def test_on_a_cpu_a_check_stops_at_once():
    checks = DeferredChecks()
    checks.require(torch.tensor(True), named("never"))
    with pytest.raises(AsyncDiffError, match="first"):
        checks.require(torch.tensor(False), named("first"))
    checks.settle()


def test_a_gpu_is_asked_once_and_the_first_that_fails_is_told():
    checks = DeferredChecks()
    with FakeTensorMode(), Answers(True, False, False) as read:
        for text in ("one", "two", "three"):
            checks.require(torch.ones((), dtype=torch.bool, device="cuda"), named(text))
        assert len(read.answers) == 3
        with pytest.raises(AsyncDiffError, match="two"):
            checks.settle()
        checks.settle()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_none_is_found(value):
    tensor = torch.full([4, 5], 6e4, dtype=torch.float16)
    assert is_finite(tensor)
    tensor[2, 3] = value
    assert not is_finite(tensor)
    tensor[0, 0] = -value
    assert not is_finite(tensor)


def test_a_learned_policy_forgets_the_text_of_the_last_run():
    case = make_case("flux")
    module = TimestepPredictionModule(**case.backbone.adapter.channels, width=16, layers=1)
    torch.nn.init.normal_(module.head[-1].weight)
    policy = LearnedDeviation(module)
    first, larger = case.draw(policy).deviations, case.draw(policy, height=24).deviations
    assert torch.equal(case.draw(LearnedDeviation(module)).deviations, first)
    assert torch.equal(case.draw(LearnedDeviation(module), height=24).deviations, larger)
    torch.nn.init.normal_(module.sequence.weight)
    assert not torch.equal(case.draw(policy).deviations, first)
