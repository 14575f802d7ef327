"""The spectrum of what a model draws."""

from types import SimpleNamespace

import pytest
import torch

from asyncdiff_cli.engine import Synchronous
from asyncdiff_cli.engine.drawing.canvas import Canvas
from asyncdiff_cli.engine.policies.spectra import Spectrum
from asyncdiff_cli.engine.schedules.job import Workbench
from asyncdiff_cli.engine.schedules.journal import Journal
from asyncdiff_cli.engine.schedules.measure import measure_spectrum
from asyncdiff_cli.engine.schedules.picture_set import PictureSet
from tests.conftest import make_case
from tests.helpers.spectra import coloured

PROMPTS = ("a cat", "a dog", "a fish")


class Known(PictureSet):
    """A set whose pictures are of a known spectrum."""

    def drawn_by(self, policy, begin=0):
        assert policy == Synchronous()
        means = torch.tensor([3.0, -2.0, 0.0, 1.0])[:, None, None]  # of the channels: no detail
        for latents in coloured(Spectrum.of_images(), 60).split((40, 20))[begin:]:
            yield SimpleNamespace(latents=latents + means)


@pytest.fixture(scope="module")
def canvas(request):
    return Canvas(make_case(getattr(request, "param", "sd3")).backbone, size=16)


@pytest.fixture
def bench(canvas, tmp_path):
    def call(kind):
        pictures = kind(canvas, PROMPTS, (0, 1, 2), 4, batch_size=2)
        return Workbench(pictures, None, None, Journal(tmp_path / "a.json", {}), {"by": "hand"})

    return call


def test_a_known_spectrum_is_found_again(bench):
    """Two batches of several sizes, weighted by their pictures."""
    lines = []
    measured = measure_spectrum(bench(Known), lines.append)
    drawn = coloured(Spectrum.of_images(), 60)
    expected = Spectrum.of_latents(drawn - drawn.mean((0, 2, 3), keepdim=True)).banded()
    assert list(measured.std) == pytest.approx(expected.std.tolist(), abs=1e-6)
    assert measured.std[0] == pytest.approx(float(Spectrum.of_images().std[0]), rel=0.15)
    assert measured.std[1] == pytest.approx(float(Spectrum.of_images().banded().std[1]), rel=0.1)
    assert lines[0].startswith("40 of 3 pictures")
    assert (measured.steps, measured.height, measured.made) == (4, 16, {"by": "hand"})


@pytest.mark.parametrize("canvas", ["sd3", "flux"], indirect=True)
def test_it_measures_what_is_drawn_without_a_deviation(bench, canvas):
    made = bench(PictureSet)
    measured = measure_spectrum(made, lambda line: None)
    latents = torch.cat([drawn.latents for drawn in made.pictures.drawn_by(Synchronous())])
    latents = canvas.backbone.adapter.unpack(latents, 16, 16)
    expected = Spectrum.of_latents(latents - latents.mean((0, 2, 3), keepdim=True)).banded()
    assert list(measured.frequency) == expected.frequency.tolist()
    assert list(measured.std) == pytest.approx(expected.std.tolist(), abs=1e-5)
