"""The search for a schedule, in the world where the best one is known."""

import pytest
import torch

from asyncdiff_cli.engine import InputError
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler, shifted_scheduler
from asyncdiff_cli.engine.policies.transfer import transfer, velocity_coefficient
from asyncdiff_cli.engine.schedules.calibration import Calibration, Images, deviations_of, teach
from asyncdiff_cli.engine.schedules.search import Search
from benchmarks.gaussian import least
from tests.helpers.spectra import told

STD = torch.logspace(0.5, -1.5, 24, dtype=torch.float64)


class Field:
    """The exact velocity of Gaussian data; it counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, latents, timestep, sigma, cond_sigma):
        self.calls += 1
        return velocity_coefficient(cond_sigma.double()[:, None], STD) * latents


def noise(batch: int = 1) -> torch.Tensor:
    return torch.ones(batch, len(STD), dtype=torch.float64)


def made(solver: str = "euler", steps: int = 5):
    scheduler = shifted_scheduler(solver, 3.0)
    scheduler.set_timesteps(steps)
    return scheduler


def error(solver: str, deviations) -> torch.Tensor:
    """Of the factors; the latents are ones, so that it is that of the latents, too."""
    sigmas = made(solver).sigmas.double()
    factors = transfer(sigmas, told(sigmas, deviations).clamp(1e-3, 1), STD, solver)
    return (factors - STD).square().mean()


def optimum(solver: str) -> float:
    return float(error(solver, least(lambda deviations: error(solver, deviations), 4)))


@pytest.mark.parametrize("solver", ["euler", "dpmpp"])
def test_it_finds_the_optimum(solver):
    """Within 2 % of the least error, against a teacher that is all but exact."""
    search = Search(split=200, candidates=12, sweeps=8)
    settled = list(Calibration([Images(Field(), noise())], lambda: made(solver), search).run())
    found = deviations_of(settled)
    assert len(found) == 4
    assert float(error(solver, torch.tensor(found))) <= 1.02 * optimum(solver)
    refined = [one.error for one in settled if one.sweep]
    assert refined == sorted(refined, reverse=True)


def test_the_spectrum_has_the_same_optimum_in_a_world_of_frequencies():
    """Each is multiplied by a number, so that what the spectrum lacks is what the latents lack."""
    side = torch.fft.fftfreq(8, 1 / 8).double()
    std = 4 / (side[:, None].square() + side.square() + 1).sqrt()

    def velocity(latents, timestep, sigma, cond_sigma):
        factor = velocity_coefficient(cond_sigma.double()[:, None], std.flatten())
        spectrum = torch.fft.fft2(latents) * factor.reshape(-1, 1, 8, 8)
        return torch.fft.ifft2(spectrum).real

    latents = torch.randn(2, 3, 8, 8, generator=torch.manual_seed(0)).double()
    found = []
    for objective in ("latents", "spectrum"):
        search = Search(candidates=9, sweeps=1, objective=objective)
        calibration = Calibration([Images(velocity, latents)], made, search)
        found.append(deviations_of(calibration.run()))
    assert found[0] == pytest.approx(found[1], abs=5e-3)
    assert max(map(abs, found[0])) > 0.1
    aims = [teacher[-1] for teacher in calibration.teachers]
    moved = [aim.roll(1, -1) for aim in aims]  # the same spectrum, of other latents
    assert calibration.spectral_error(moved) == pytest.approx(0, abs=1e-20)
    assert min(calibration.distances(moved)) > 1e-3
    assert calibration.spectral_error([2 * aim for aim in aims]) > 1e-3


def test_the_first_pass_alone_is_better_than_half_a_step():
    settled = list(Calibration([Images(Field(), noise())], made, Search(sweeps=0)).run())
    assert [(one.index, one.sweep) for one in settled] == [(k, 0) for k in range(1, 5)]
    found = float(error("euler", torch.tensor(deviations_of(settled))))
    assert found < float(error("euler", 0.5))
    assert found < float(error("euler", 0.0)) / 2


def test_it_asks_as_often_as_it_says():
    field = Field()
    search = Search(split=3, candidates=4, sweeps=2)
    list(Calibration([Images(field, noise())], made, search).run())
    assert 0.8 * search.evaluations(5) < field.calls <= search.evaluations(5)


def test_batches_are_searched_over_together():
    one, two = [Images(Field(), noise(2))], [Images(Field(), noise())] * 2
    together, apart = (Calibration(images, made, Search(sweeps=0)).run() for images in (one, two))
    assert deviations_of(together) == deviations_of(apart)


def test_it_goes_on_where_it_was_stopped():
    calibration = Calibration([Images(Field(), noise())], made)
    whole = list(calibration.run())
    for stopped in (1, 3, 5, len(whole)):
        assert [*whole[:stopped], *calibration.run(whole[:stopped])] == whole


def test_it_keeps_to_the_grid_where_no_deviation_helps():
    """A field that does not look at its time is drawn best by the grid's own: all are alike."""

    def straight(latents, timestep, sigma, cond_sigma):
        return -torch.ones_like(latents)

    calibration = Calibration([Images(straight, noise())], made)
    found = deviations_of(calibration.run())
    assert calibration.error(found) <= calibration.error([0.0] * 4) < 1e-12
    assert found == (0.0,) * 4


def test_the_teacher_converges_to_the_data():
    sigmas = made().sigmas.tolist()
    coarse, fine = (teach(Images(Field(), noise()), sigmas, split)[-1][0] for split in (50, 100))
    assert float((2 * fine - coarse - STD).abs().max()) < 2e-2  # extrapolated, of first order
    assert float((fine - STD).abs().mean()) < float((coarse - STD).abs().mean())


def test_a_single_step_has_nothing_to_find():
    assert list(Calibration([Images(Field(), noise())], lambda: made(steps=1)).run()) == []


def test_heun_is_refused():
    with pytest.raises(InputError, match="one evaluation a step"):
        Calibration([Images(Field(), noise())], lambda: made("heun"))
    scheduler = make_scheduler("dpmpp", "sd3", {"shift": 3.0, "final_sigmas_type": "sigma_min"})
    scheduler.set_timesteps(4)
    with pytest.raises(InputError, match="ends at 0"):
        Calibration([Images(Field(), noise())], lambda: scheduler)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": 1}, "split is at least 2"),
        ({"candidates": 2}, "candidates is at least 3"),
        ({"sweeps": -1}, "sweeps is at least 0"),
        ({"sweeps": 5000}, "at most 1000"),
        ({"objective": "spectra"}, "unknown objective 'spectra'; did you mean 'spectrum'"),
    ],
)
def test_a_search_that_is_none_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Search(**settings)
