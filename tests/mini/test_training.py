import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mini import training
from mini.muon import Muon
from mini.training import Budget, Run, rate_at, reopen
from mini.transformer import sample_times


def fit(
    directory: Path,
    budget: Budget,
    stop: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Run, Tensor]:
    """Fit a line, and die at `stop`; ``tick`` is called at every step."""
    torch.manual_seed(0)
    line = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(line.parameters(), lr=0.1)
    run = Run(directory, {"line": line}, [optimizer], budget, warmup=2)

    def draw(step: int) -> Tensor:
        tick()
        if step == stop:
            run.save()
            raise KeyboardInterrupt
        return torch.randn(8, 3, generator=torch.Generator().manual_seed(step))

    run.train(lambda x: {"loss": (line(x) - x.sum(1, keepdim=True)).square().mean()}, draw)
    return run, line.weight.detach()


def test_training_learns(tmp_path: Path) -> None:
    _, weight = fit(tmp_path, Budget(150))
    torch.testing.assert_close(weight, torch.ones(1, 3), atol=0.05, rtol=0)


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "b", Budget(12), stop=7)
    assert torch.equal(fit(tmp_path / "b", Budget(12))[1], fit(tmp_path / "a", Budget(12))[1])


def test_a_run_bound_by_time_ends_with_it_and_goes_on_from_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])

    def tick() -> None:
        clock[0] += 1

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, Budget(0, seconds=10.0), stop=5, tick=tick)
    half = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["progress"]
    assert half == pytest.approx(0.5)
    run, _ = fit(tmp_path, Budget(0, seconds=6.0), tick=tick)
    assert (run.progress, run.done) == (1.0, True)
    assert run.step == 5 + 6
    assert fit(tmp_path, Budget(0, seconds=6.0))[0].step == run.step  # which is complete


def test_a_complete_run_goes_on_from_where_its_rate_began_to_fall(tmp_path: Path) -> None:
    fit(tmp_path, Budget(12))
    assert fit(tmp_path, Budget(20))[0].step == 12
    reopen(tmp_path)
    longer = fit(tmp_path, Budget(20))
    assert longer[0].step == 20
    assert torch.equal(longer[1], fit(tmp_path.with_name("whole"), Budget(20))[1])


def test_no_time_leaves_a_run_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, Budget(12), stop=7)
    assert fit(tmp_path, Budget(12, seconds=0.0))[0].step == 7


def test_a_diverged_run_stops(tmp_path: Path) -> None:
    line = nn.Linear(1, 1)
    run = Run(tmp_path, {"line": line}, [torch.optim.AdamW(line.parameters())], Budget(3))
    with pytest.raises(FloatingPointError, match="step 1"):
        run.train(lambda step: {"loss": line.weight.sum() * float("nan")}, lambda step: step)


def test_the_rate_rises_holds_and_falls() -> None:
    rates = [rate_at(step, step / 100, warmup=10, decay=0.25) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:75] == [1.0] * 66
    assert rates[76:] == sorted(rates[76:], reverse=True)
    assert rates[-1] == 0.0


def test_muon_takes_the_steps_of_torchs_own() -> None:
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 8), (16, 8), (8, 16), (8, 8)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    optimizers = Muon(ours, lr=0.02), torch.optim.Muon(theirs, lr=0.02)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)  # bf16 inside, steps of 0.02


def test_times_are_inside_and_shifted_toward_noise() -> None:
    plain = sample_times(4000, 1.0, torch.Generator().manual_seed(0))
    shifted = sample_times(4000, 3.0, torch.Generator().manual_seed(0))
    assert plain.min() > 0
    assert shifted.max() < 1
    assert plain.median().item() == pytest.approx(0.5, abs=0.02)
    assert shifted.median().item() == pytest.approx(0.75, abs=0.02)  # 3·½ / (1 + 2·½)
