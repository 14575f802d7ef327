"""Spectra that are kept in files, and the schedules that are best for them."""

import json

import pytest
import torch

from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.policies.specs import find_policy, parse_policy
from asyncdiff_cli.engine.policies.spectra import Spectrum
from asyncdiff_cli.engine.policies.spectral import SpectralDeviation, optimal_deviations
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.policies.table import policy_from_dict
from tests.helpers.spectra import coloured

GRID = torch.linspace(1, 0, 6)
ROUGH = MeasuredSpectrum(frequency=(0.0, 1.0, 2.0), std=(0.3, 0.3, 0.3), share=(0.1, 0.4, 0.5))


def deviations(policy):
    return policy.for_run(GRID, "euler").deviations


def test_what_is_measured_is_what_was_drawn():
    """A component's share of the error of its size is 1/√(2·pictures·channels) at most."""
    spectrum = Spectrum.of_images()
    measured = MeasuredSpectrum.of(Spectrum.of_latents(coloured(spectrum, 64)).banded())
    banded = spectrum.banded()
    assert list(measured.frequency) == banded.frequency.tolist() == list(range(24))
    assert list(measured.std) == pytest.approx(banded.std.tolist(), rel=4 / (2 * 64 * 4) ** 0.5)
    assert list(measured.share) == pytest.approx(banded.weight.tolist(), abs=1e-6)
    assert deviations(measured.policy()) == pytest.approx(deviations(SpectralDeviation()), abs=0.03)


def test_bands_keep_the_power_and_the_components():
    spectrum = Spectrum.of_latents(torch.randn(1, 2, 12, 8, generator=torch.Generator()))
    banded = spectrum.banded()
    for one in (spectrum, banded):
        assert float(one.weight.sum()) == pytest.approx(1)
    power = [(one.weight * one.std.square()).sum().item() for one in (spectrum, banded)]
    assert power[0] == pytest.approx(power[1])
    assert float(banded.weight[1]) == pytest.approx(8 / 96)  # one step across, down, or both


def test_the_spectrum_of_images_as_a_file_gives_the_schedule_of_images():
    rows = Spectrum.of_images().rows
    assert optimal_deviations(tuple(GRID.tolist()), rows=rows) == optimal_deviations(
        tuple(GRID.tolist())
    )


def test_another_spectrum_has_another_schedule():
    assert deviations(ROUGH.policy()) != pytest.approx(deviations(SpectralDeviation()), abs=0.05)


def test_a_policy_is_made_of_a_file_and_of_its_record(tmp_path):
    ROUGH.save(path := tmp_path / "rough.json")
    assert MeasuredSpectrum.load(path) == ROUGH
    label, policy, gamma = parse_policy(f"spectral:{path}@0.5", REGISTRY["mini"])
    assert (label, gamma) == (f"spectral:{path}", 0.5)
    assert policy == ROUGH.policy()
    record = json.loads(json.dumps(policy.to_dict()))
    assert policy_from_dict(record) == policy
    assert deviations(policy_from_dict(record)) == deviations(policy)


def test_the_record_of_images_in_general_is_as_it_was():
    record = SpectralDeviation(2.0).to_dict()
    assert record == {"name": "spectral", "weight": 2.0}
    assert policy_from_dict(record) == SpectralDeviation(2.0)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"missing\.json"):
        find_policy("spectral:missing.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": [0.3, 0.3]}, "frequency, std and share have a number each"),
        ({"frequency": [0.0, 2.0, 1.0]}, "frequency rises from number to number"),
        ({"std": [0.0, 0.0, 0.0]}, "std is 0 at every frequency"),
        ({"std": [0.3, -0.3, 0.3]}, "std"),
        ({"share": [0.0, 0.5, 0.5]}, "share"),
        ({"frequency": [], "std": [], "share": []}, "frequency"),
        ({"format": 2}, "format"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, change, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**ROUGH.model_dump(mode="json"), **change}))
    with pytest.raises(InputError, match=message) as refusal:
        MeasuredSpectrum.load(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("rows", [[[1.0, 2.0]], [[0.0, -1.0, 1.0]], [[0.0, "much", 1.0]], [3.0]])
def test_a_record_that_is_none_is_refused(rows):
    with pytest.raises(InputError):
        policy_from_dict({"name": "spectral", "weight": 1.0, "spectrum": rows})
