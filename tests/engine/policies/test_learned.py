"""The learned policies in the sampler and on the disk."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from asyncdiff_cli.engine import (
    AsyncDiffError,
    InputError,
    LearnedDeviation,
    StepState,
    TimestepPredictionModule,
    attach,
    desync,
    load_tpm,
    policy_from_dict,
    sample,
)
from asyncdiff_cli.engine.policies.learned import RATIO_MARGIN, SampledDeviation
from asyncdiff_cli.engine.policies.observation import Observation
from asyncdiff_cli.engine.policies.tpm import excess, mode
from asyncdiff_cli.engine.training.grpo import log_prob
from tests.conftest import PROMPTS, Case, make_case, seeded
from tests.helpers.modules import SIZE, answers, randomised, seen, tiny, tpm_for
from tests.helpers.rounding import assert_rounded, terms


def certain(tpm: TimestepPredictionModule, a: float, b: float) -> TimestepPredictionModule:
    """Answers φ(a) and φ(b) whatever it sees."""
    with torch.no_grad():
        tpm.head[-1].bias.copy_(torch.tensor([a, b]))
    return tpm


def generators(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@pytest.mark.parametrize(("gamma", "bound"), [(1.0, 0.5), (2.0, 1.0)])
def test_an_untrained_module_is_the_synchronous_sampler_bit_for_bit(case: Case, gamma, bound):
    policy = LearnedDeviation(tpm_for(case, bound))
    result, stock = case.draw(policy, gamma), case.draw_stock()
    assert torch.equal(result.images, stock)
    assert torch.equal(result.latents, case.stock_latents())
    with attach(case.pipe, policy, gamma) as trace:
        assert torch.equal(case.draw_stock(), stock)
    assert torch.equal(trace.deviations, torch.zeros(2, 3))
    assert torch.equal(trace.cond_sigmas, result.cond_sigmas)


class Recording(LearnedDeviation):
    """Keeps what its module sees."""

    def __init__(self, tpm):
        super().__init__(tpm)
        self.seen = []

    def __call__(self, state):
        self.seen.append(Observation.of(state))
        return super().__call__(state)


def test_a_trained_module_sees_and_does_the_same_through_attach(case: Case):
    ours, attached = (Recording(randomised(tpm_for(case, 1.0))) for _ in range(2))
    result = case.draw(ours, 1.5)
    with attach(case.pipe, attached, 1.5) as trace:
        images = case.draw_stock()
    assert len(ours.seen) == len(attached.seen) == 3
    for one, other in zip(ours.seen, attached.seen, strict=True):
        for name, value in vars(one).items():
            assert torch.equal(value, vars(other)[name]), name
    assert torch.equal(images, result.images)
    assert torch.equal(trace.deviations, result.deviations)
    assert result.deviations.abs().min() > 1e-3
    assert not torch.equal(images, case.draw_stock())


def test_a_module_sees_flux_s_latents_as_its_vae_does():
    case = make_case("flux")  # 16 by 24 pixels, so that rows and columns are not to be confused
    policy = Recording(tpm_for(case))
    states = []
    case.draw(policy, on_step=states.append)
    for observation, state in zip(policy.seen, states, strict=False):
        pictures = case.pipe._unpack_latents(state.latents, 16, 24, case.pipe.vae_scale_factor)
        assert pictures.shape == (2, 4, 8, 12)
        assert torch.equal(observation.latents[0], pictures)


def test_the_deviation_is_that_of_the_mode():
    """α − 1 = 2.5 and β − 1 = 1/e: r* = 2.5/(2.5 + 1/e)."""
    case = make_case("sd3")
    ratio = 2.5 / (2.5 + np.exp(-1))
    for bound in (0.5, 1.0):
        result = case.draw(LearnedDeviation(certain(tpm_for(case, bound), 1.0, -1.0)))
        expected = torch.full((2, 3), 2 * bound * (ratio - 0.5))
        assert torch.allclose(result.deviations, expected)


@pytest.mark.parametrize(("a", "b", "ratio"), [(80.0, -80.0, 1.0), (-80.0, 80.0, 0.0)])
def test_the_surest_module_stays_in_its_bound(a, b, ratio):
    case = make_case("sd3")
    for bound in (0.5, 1.0):
        result = case.draw(LearnedDeviation(certain(tpm_for(case, bound), a, b)))
        assert torch.equal(result.deviations, torch.full((2, 3), bound * (2 * ratio - 1)))


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("latent_channels", "trained for 5 latent channels, and the backbone has 16"),
        ("prompt_channels", "trained for 5 prompt channels, and the backbone has 32"),
        ("pooled_channels", "trained for 5 pooled prompt channels, and the backbone has 32"),
    ],
)
@pytest.mark.parametrize("policy", [LearnedDeviation, lambda t: SampledDeviation(t, [])])
def test_a_module_of_another_backbone_is_refused_with_the_numbers(policy, wrong, line):
    channels = {"latent_channels": 16, "prompt_channels": 32, "pooled_channels": 32, wrong: 5}
    with pytest.raises(InputError, match=line) as caught:
        make_case("sd3").draw(policy(tiny(**channels)))
    assert "\n" not in str(caught.value)


@pytest.fixture
def directory(tmp_path):
    randomised(tiny(bound=1.0)).save_pretrained(tmp_path / "tpm")
    return tmp_path / "tpm"


def test_a_module_is_kept_whole(directory, capsys):
    loaded = load_tpm(directory)
    assert loaded.bound == 1.0
    assert torch.equal(answers(loaded, seen()), answers(randomised(tiny()), seen()))
    assert {path.name for path in directory.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",  # the hub's card
    }
    config = json.loads((directory / "config.json").read_text())
    assert config == {
        "latent_channels": 4,
        "prompt_channels": 8,
        "pooled_channels": 6,
        "bound": 1.0,
        **SIZE,
        "actions": ["deviation"],
    }
    assert capsys.readouterr().out == ""  # where JSON goes


def refused(source, kind=AsyncDiffError):
    with pytest.raises(AsyncDiffError) as caught:
        load_tpm(source)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_has_to_be_a_module(tmp_path):
    assert refused("flux", InputError).startswith("no module is shipped for flux: train one")
    assert "no directory" in refused(tmp_path / "nowhere", InputError)
    assert "no directory nowhere" in refused("nowhere", InputError)
    assert "has no config.json" in refused(tmp_path, InputError)
    assert "no directory ./nowhere" in refused("./nowhere", InputError)


def cut_weights(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def cut_config(directory):
    (directory / "config.json").write_text('{"bound": ')


def no_weights(directory):
    (directory / "model.safetensors").unlink()


def configured(**changes):
    def change(directory):
        path = directory / "config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        cut_weights,
        cut_config,
        no_weights,
        configured(layers=3),  # than the weights have
        configured(layers=1),
        configured(width=32),
        configured(latent_channels=None),
        configured(width="wide"),
    ],
)
def test_a_damaged_module_is_refused_and_not_filled_up_at_random(directory, damage):
    damage(directory)
    assert refused(directory).startswith(f"the module in {directory} is incomplete or damaged (")


RESPONSE = SimpleNamespace(headers={}, status_code=403, request=None)


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (GatedRepoError("no", response=RESPONSE), AsyncDiffError, "is gated: accept its licence"),
        (
            LocalEntryNotFoundError("offline"),
            AsyncDiffError,
            "the directory of a module",
        ),
        (RepositoryNotFoundError("no", response=RESPONSE), InputError, "there is no repository"),
        (
            RemoteEntryNotFoundError("no", response=RESPONSE),
            InputError,
            "someone/tpm holds no timestep prediction module",
        ),
    ],
)
def test_what_the_hub_refuses_is_one_line(error, kind, line, monkeypatch):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    assert line in refused("someone/tpm", kind)


def test_a_description_makes_the_same_policy(directory):
    policy = LearnedDeviation.load(directory)
    description = json.loads(json.dumps(policy.to_dict()))
    again = policy_from_dict(description)
    assert description["source"] == str(directory)
    assert again.to_dict() == policy.to_dict()
    assert again.bound == 1.0
    assert torch.equal(answers(again.tpm, seen()), answers(policy.tpm, seen()))


def test_a_description_whose_weights_changed_is_refused(directory):
    description = LearnedDeviation.load(directory).to_dict()
    tpm = load_tpm(directory)
    with torch.no_grad():
        tpm.readout[0, 0] += 1e-3
    tpm.save_pretrained(directory)
    with pytest.raises(InputError, match="is not the one that was used") as caught:
        policy_from_dict(description)
    assert "\n" not in str(caught.value)


def test_a_module_that_was_never_saved_cannot_be_described():
    with pytest.raises(InputError, match="never saved"):
        policy_from_dict(LearnedDeviation(tiny()).to_dict())


def test_the_sampler_reports_exactly_the_ratios_that_are_kept(case: Case):
    for bound in (0.5, 1.0):
        policy = SampledDeviation(randomised(tpm_for(case, bound)), generators(5, 6))
        result = case.draw(policy)
        ratios = torch.stack(policy.ratios, dim=1)
        assert ratios.shape == (2, 3)
        assert len(set(ratios.flatten().tolist())) == 6
        assert torch.equal(result.deviations, desync.deviation_from_ratio(ratios, bound))
        observation = Observation.stack(policy.seen)
        assert torch.equal(observation.cond_sigma.T, result.cond_sigmas[:, :-1])
        assert torch.equal(observation.progress[:, 0], torch.arange(3) / 4)


def test_a_draw_belongs_to_its_image_and_not_to_the_batch():
    case = make_case("sd3")
    tpm = certain(tpm_for(case), 1.0, -0.5)
    together = SampledDeviation(tpm, generators(5, 6))
    case.draw(together)
    for image, seed in enumerate((5, 6)):
        alone = SampledDeviation(tpm, generators(seed))
        settings = {**case.ours, "num_inference_steps": 4, "output_type": "latent"}
        sample(case.backbone, PROMPTS[image], alone, generator=[seeded(2)[image]], **settings)
        ratios = torch.stack(together.ratios)[:, image]
        assert_rounded(torch.cat(alone.ratios), ratios, terms(tpm))
    swapped = SampledDeviation(tpm, generators(6, 5))
    case.draw(swapped)
    assert torch.equal(torch.stack(swapped.ratios), torch.stack(together.ratios).flip(1))


def state(images: int) -> StepState:
    return StepState(
        index=0,
        num_evaluations=5,
        sigma=torch.tensor(1.0),
        sigma_next=torch.tensor(0.8),
        cond_sigma=torch.ones(images),
        latents=torch.zeros(images, 4, 2, 2),
        velocity=torch.zeros(images, 4, 2, 2),
        prompt_embeds=torch.zeros(images, 1, 8),
        pooled_prompt_embeds=torch.zeros(images, 6),
    )


def test_draws_have_the_moments_of_the_beta():
    """φ(2) = 6 and φ(0) = 2: mean 6/8, variance 6·2/(8²·9)."""
    policy = SampledDeviation(certain(tiny(), 2.0, 0.0), generators(*range(2000)))
    policy(state(2000))
    (ratios,) = policy.ratios
    assert ratios.mean().item() == pytest.approx(0.75, abs=4 * (12 / 576 / 2000) ** 0.5)
    assert ratios.var().item() == pytest.approx(12 / 576, rel=0.1)


def test_each_image_is_drawn_from_its_own_beta():
    """Numbers of the same generators, given what the module says of each image."""
    tpm = randomised(tiny())
    observed = state(2)
    observed.latents[1] = 3.0
    policy = SampledDeviation(tpm, generators(5, 6))
    policy(observed)
    alpha, beta = (1 + answers(tpm, Observation.of(observed)).double()[:, 0]).tolist()
    assert alpha[0] != alpha[1]
    drawn = [g.beta(a, b) for g, a, b in zip(generators(5, 6), alpha, beta, strict=True)]
    assert torch.equal(policy.ratios[0], torch.tensor(drawn))


def test_draws_keep_a_finite_density_at_the_ends():
    for a, b in ((-80.0, 3000.0), (3000.0, -80.0)):
        policy = SampledDeviation(certain(tiny(), a, b), generators(*range(100)))
        policy(state(100))
        (ratios,) = policy.ratios
        ends = torch.minimum(ratios, 1 - ratios)
        assert ends.min().item() == pytest.approx(RATIO_MARGIN, rel=0.1)
        parameters = excess(torch.tensor([a, b]))[:, None, None].expand(-1, 1, 100)
        assert log_prob(*parameters, ratios[None]).isfinite().all()


def test_drawing_leaves_no_graph_behind():
    policy = SampledDeviation(randomised(tiny()), generators(0))
    assert not policy(state(1)).requires_grad
    assert not LearnedDeviation(policy.tpm)(state(1)).requires_grad
    assert mode(*policy.tpm(policy.seen[0])).requires_grad
