"""Which steps are kept of a run, as what, and how a sheet shows them."""

import pytest
import torch
from PIL import Image

from asyncdiff_cli.engine.drawing.panel import TILE
from asyncdiff_cli.engine.drawing.stepwise import MOST, Estimates, tiles
from asyncdiff_cli.engine.policies.base import StepState


def seen(evaluations, most=MOST):
    """What is kept of a run at t = 1, 1 − 1/n, … of latents 1 with the velocity 2."""
    estimates = Estimates(torch.float16, most)
    sigmas = torch.linspace(1, 0, evaluations + 1)
    ones = torch.ones(2, 3)
    for k in range(evaluations):
        times = sigmas[k], sigmas[k + 1], sigmas[k].expand(2)
        estimates.see(StepState(k, evaluations, *times, ones, 2 * ones, ones, ones))
    return estimates


@pytest.mark.parametrize(
    ("evaluations", "kept"),
    [
        (1, [0]),
        (2, [0, 1]),
        (16, list(range(16))),
        (17, list(range(0, 17, 2))),
        (50, list(range(1, 50, 4))),
        (1000, list(range(54, 1000, 63))),
    ],
)
def test_of_a_long_run_every_nth_is_kept_and_the_last(evaluations, kept):
    estimates = seen(evaluations)
    assert list(estimates.latents) == kept
    assert kept[-1] == evaluations - 1
    assert len(kept) <= MOST
    assert list(seen(evaluations, None).latents) == list(range(evaluations))


def test_estimates_are_kept_as_they_are_decoded_with_all_times():
    estimates = seen(4)
    assert estimates.sigmas.tolist() == [1, 0.75, 0.5, 0.25, 0]
    for k, latents in estimates.latents.items():
        assert (latents.dtype, latents.device.type) == (torch.float16, "cpu")
        assert (latents == 1 - 2 * (1 - k / 4)).all()


def test_no_more_is_decoded_at_once_than_was_drawn(monkeypatch):
    counts = []

    class Adapter:
        def decode(self, latents, height, width, output_type, at_once):
            counts.append(at_once)
            return [Image.new("RGB", (width, height))] * len(latents)

    class Backbone:
        adapter, device = Adapter(), torch.device("cpu")

        class pipe:  # noqa: N801
            @staticmethod
            def maybe_free_model_hooks():
                pass

    frames = seen(6).decode(Backbone, 1, 8, 600)
    assert (list(frames), counts) == (list(range(6)), [2])
    assert {image.size for image in tiles(frames).values()} == {(TILE, 3)}
