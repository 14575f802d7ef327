"""The scheduler in every flow pipeline of diffusers that a tiny model can be built for.

Whatever a pipeline makes of `scheduler.timesteps`, its networks must be told the same function of
the moved times as of the grid's; and told just that by hand, the stock scheduler must draw the same
to the bit. docs/pipelines.md has the outcomes, a row per class.
"""

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from asyncdiff_cli.engine import (
    AsyncFlowMatchEulerScheduler,
    InputError,
    ScheduledDeviation,
    attach,
)
from asyncdiff_cli.engine.backbones.adapters import ADAPTERS
from asyncdiff_cli.engine.sampling.attach import CONTROLLED, FROM_IMAGE
from tests.conftest import quiet
from tests.helpers.flow_pipelines import MAKERS, STEPS

DEVIATIONS = [0.5, -0.4, 0.8]
TABLE = Path(__file__).parents[3] / "docs" / "pipelines.md"
NETWORKS = ("transformer", "controlnet")
Told = dict[str, list[torch.Tensor]]
"""What each network was told at each of its calls."""


def draw(pipe: Any, settings: dict[str, Any]) -> torch.Tensor:
    torch.manual_seed(0)  # some draw noise beside the generator's
    seed = torch.Generator().manual_seed(0)
    own = {"num_inference_steps": STEPS, "generator": seed, "output_type": "latent"}
    return next(iter(pipe(**settings, **own).values()))


@contextmanager
def listening(pipe: Any, by_hand: Told | None = None) -> Iterator[Told]:
    """Note what the networks are told; or tell them something else."""
    told: Told = {}

    def heard(name: str, forward: Any) -> Any:
        signature, calls = inspect.signature(forward), told.setdefault(name, [])
        time = next(p for p in ("timestep", "t") if p in signature.parameters)

        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            if by_hand is not None:
                bound.arguments[time] = by_hand[name][len(calls)]
            calls.append(bound.arguments[time].clone())
            return forward(*bound.args, **bound.kwargs)

        return call

    networks = {name: net for name in NETWORKS if (net := getattr(pipe, name, None)) is not None}
    for name, network in networks.items():
        network.forward = heard(name, network.forward)
    try:
        yield told
    finally:
        for network in networks.values():
            del network.forward


def outcome(pipe: Any, settings: dict[str, Any]) -> str:
    """How the pipeline gets on with the scheduler, in the words of the table."""
    stock = pipe.scheduler
    with listening(pipe) as on_grid:
        plain = draw(pipe, settings)
    grid = stock.timesteps.clone()
    moved = AsyncFlowMatchEulerScheduler.from_config(stock.config, deviations=DEVIATIONS)
    pipe.scheduler = moved
    try:
        with listening(pipe) as told:
            drawn = draw(pipe, settings)
    except InputError as error:
        return f"refused: {error}"
    finally:
        pipe.scheduler = stock
    with listening(pipe, told):
        by_hand = draw(pipe, settings)
    assert torch.equal(drawn, by_hand)
    assert not torch.allclose(drawn, plain, rtol=1e-3, atol=1e-3)
    begin = int("strength" in settings)
    for name, calls in told.items():
        check_told(calls, on_grid[name], moved.timesteps[begin:], grid[begin:])
    begins = torch.equal(told["transformer"][0], on_grid["transformer"][0])
    return "to the bit" if begins else "to the bit; the first evaluation deviates as well"


def check_told(
    calls: list[torch.Tensor], on_grid: list[torch.Tensor], moved: torch.Tensor, grid: torch.Tensor
) -> None:
    """What was told is the affine function of the moved times that it is of the grid's."""
    each = len(calls) // len(grid)  # in an evaluation: both branches, or one
    first, last = on_grid[0].double(), on_grid[-1].double()
    slope = (last - first) / (grid[-1] - grid[0])
    for k, one in enumerate(calls):
        expected = first + slope * (moved[k // each] - grid[0])
        assert torch.allclose(one.double(), expected, rtol=1e-5, atol=1e-5)


def beside_attach(pipe: Any, settings: dict[str, Any]) -> str:
    """How near the pipeline comes to what it draws attached, for a class that `attach` knows."""
    if type(pipe) not in {**ADAPTERS, **FROM_IMAGE, **CONTROLLED}:
        return ""
    stock = pipe.scheduler
    late = int("strength" in settings)
    with attach(pipe, ScheduledDeviation(DEVIATIONS[late:])):
        expected = draw(pipe, settings)
    pipe.scheduler = AsyncFlowMatchEulerScheduler.from_config(stock.config, deviations=DEVIATIONS)
    drawn = draw(pipe, settings)
    pipe.scheduler = stock
    if torch.equal(drawn, expected):
        return "to the bit"
    assert torch.allclose(drawn, expected, rtol=1e-4, atol=1e-5)
    return "within rounding"


@pytest.fixture
def no_megapixels(monkeypatch):
    """Edits are enlarged to a megapixel, whatever they are asked for."""
    for module, size in (("edit", (16, 16, None)), ("edit_inpaint", (16, 16, None))):
        name = f"diffusers.pipelines.qwenimage.pipeline_qwenimage_{module}"
        monkeypatch.setattr(
            importlib.import_module(name), "calculate_dimensions", lambda *_, size=size: size
        )
    name = "diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus"
    monkeypatch.setattr(importlib.import_module(name), "calculate_dimensions", lambda *_: (16, 16))


@pytest.mark.parametrize("class_name", MAKERS)
def test_the_table_says_how_a_pipeline_gets_on_with_the_scheduler(class_name, no_megapixels):
    torch.manual_seed(0)
    pipe, settings = MAKERS[class_name](class_name)
    quiet(pipe)
    found = outcome(pipe, settings)
    row = f"| `{class_name}` | {found} | {beside_attach(pipe, settings)} |"
    assert row.replace("|  |", "| |") in TABLE.read_text().splitlines()


def test_the_table_names_no_other_pipeline():
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(MAKERS)
