from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mini.training import Run, rate_at
from mini.transformer import sample_times


def fit(directory: Path, steps: int, stop: int | None = None) -> Tensor:
    """Fit a line for `steps` steps, and die at `stop`."""
    torch.manual_seed(0)
    line = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(line.parameters(), lr=0.1)
    run = Run(directory, {"line": line}, [optimizer], steps, warmup=2)

    def loss_at(step: int) -> dict[str, Tensor]:
        if step == stop:
            run.save()
            raise KeyboardInterrupt
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return {"loss": (line(x) - x.sum(1, keepdim=True)).square().mean()}

    run.train(loss_at)
    return line.weight.detach()


def test_training_learns(tmp_path: Path) -> None:
    torch.testing.assert_close(fit(tmp_path, 150), torch.ones(1, 3), atol=0.05, rtol=0)


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "b", 12, stop=7)
    assert torch.equal(fit(tmp_path / "b", 12), fit(tmp_path / "a", 12))


def test_a_diverged_run_stops(tmp_path: Path) -> None:
    line = nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(line.parameters())
    run = Run(tmp_path, {"line": line}, [optimizer], 3)
    with pytest.raises(FloatingPointError, match="step 1"):
        run.train(lambda step: {"loss": line.weight.sum() * float("nan")})


def test_the_rate_rises_holds_and_falls() -> None:
    rates = [rate_at(step, 100, warmup=10, decay=0.25) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:76] == [1.0] * 67
    assert rates[76:] == sorted(rates[76:], reverse=True)
    assert rates[-1] == pytest.approx(0.04)


def test_times_are_inside_and_shifted_toward_noise() -> None:
    plain = sample_times(4000, 1.0, torch.Generator().manual_seed(0))
    shifted = sample_times(4000, 3.0, torch.Generator().manual_seed(0))
    assert plain.min() > 0
    assert shifted.max() < 1
    assert plain.median().item() == pytest.approx(0.5, abs=0.02)
    assert shifted.median().item() == pytest.approx(0.75, abs=0.02)  # 3·½ / (1 + 2·½)
