"""The module on its own: Eq. 17 and 18, what it sees, what it ignores, and how it starts."""

import math
from dataclasses import fields, replace

import pytest
import torch
from diffusers import FluxPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Beta

from asyncdiff_cli.engine import InputError, TimestepPredictionModule, load_backbone
from asyncdiff_cli.engine.policies.base import StepState
from asyncdiff_cli.engine.policies.observation import Observation, unpacked
from asyncdiff_cli.engine.policies.tpm import Block, compress, excess, fourier, mode
from asyncdiff_cli.engine.training.recipe_files import load_recipe, names
from tests.helpers.modules import answers, randomised, seen, tiny
from tests.helpers.rounding import assert_rounded, terms


def at(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize(
    ("x", "phi"),
    [
        (2.0, 6.0),  # 2 + 2 + 4/2
        (1.0, 3.5),
        (0.5, 2.625),
        (0.0, 2.0),
        (-1.0, 1 + 1 / math.e),
        (-2.0, 1 + 1 / math.e**2),
    ],
)
def test_eq_17_at_known_values(x, phi):
    assert excess(at(x)).item() == pytest.approx(phi - 1, rel=1e-12)


def test_eq_17_has_no_step_and_no_kink_at_zero():
    x = torch.tensor([-1e-9, 0.0, 1e-9], dtype=torch.float64, requires_grad=True)
    value = excess(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert torch.allclose(value, torch.ones_like(x), atol=2e-9, rtol=0)  # φ(0) = 2
    assert torch.allclose(slope, torch.ones_like(x), atol=2e-9, rtol=0)


@given(st.floats(-1e6, 1e6, width=32))
def test_eq_17_is_positive_with_a_finite_slope(x):
    number = torch.tensor(x, requires_grad=True)
    (slope,) = torch.autograd.grad(excess(number), number)
    assert 0 < excess(number) < math.inf
    assert 0 <= slope < math.inf
    assert slope > 0 or x <= -80


@given(st.floats(-80, 1e4), st.floats(1e-3, 10))
def test_eq_17_rises(x, distance):
    assert excess(at(x)) < excess(at(x + distance))


def test_eq_18_at_known_values():
    """α = 4, β = 2: 3/4; α = 2.625, β = 2: 1.625/2.625."""
    assert mode(at(3.0), at(1.0)).item() == 0.75
    assert mode(at(1.625), at(1.0)).item() == pytest.approx(13 / 21)
    assert mode(at(1.0), at(1.0)).item() == 0.5


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32))
def test_eq_18_is_a_ratio(a, b):
    assert 0 <= mode(*excess(torch.tensor([a, b]))) <= 1


def test_eq_18_survives_parameters_that_round_to_one():
    low, lower, middle = excess(torch.tensor([-80.0, -1e6, 0.0]))
    assert 1 + low == 1
    assert mode(lower, lower).item() == 0.5
    assert mode(low, low).item() == 0.5
    assert mode(low, middle).item() == pytest.approx(0, abs=1e-30)
    assert mode(middle, low).item() == 1


@given(st.floats(-1, 4), st.floats(-1, 4))
@settings(max_examples=25)
def test_eq_18_is_where_the_density_is_highest(a, b):
    alpha, beta = excess(at(a)), excess(at(b))
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)[1:-1]
    highest = grid[Beta(1 + alpha, 1 + beta).log_prob(grid).argmax()]
    assert abs(mode(alpha, beta) - highest) <= 5.1e-4


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=20)
def test_packed_latents_are_laid_out_as_flux_does(rows, columns, channels):
    latents = torch.randn(2, channels, 2 * rows, 2 * columns)
    packed = FluxPipeline._pack_latents(latents, 2, channels, 2 * rows, 2 * columns)
    height, width, factor = 16 * rows, 16 * columns, 8
    assert torch.equal(unpacked(packed, (rows, columns)), latents)
    assert torch.equal(latents, FluxPipeline._unpack_latents(packed, height, width, factor))


def test_latents_that_are_not_packed_are_left_alone():
    latents = torch.randn(1, 4, 6, 2)
    assert unpacked(latents, None) is latents


def test_fourier_features_have_half_a_period_to_sixty_four():
    x = torch.tensor([0.0, 0.125, 1e-3])
    features = fourier(x)
    assert features.shape == (3, 32)
    periods = 0.5 * 2 ** (7 * torch.arange(16) / 15)
    angles = 2 * math.pi * x[:, None] * periods
    assert torch.allclose(features, torch.cat([angles.sin(), angles.cos()], 1), atol=1e-5)
    ends = [math.sin(math.pi / 8), 0.0, math.cos(math.pi / 8), 1.0]
    assert torch.allclose(features[1, [0, 15, 16, 31]], torch.tensor(ends), atol=1e-5)
    assert (features[0] - features[2]).abs().max() > 0.3  # a thousandth of time is seen


def test_large_inputs_are_tamed_and_small_ones_are_not():
    x = torch.tensor([0.0, 0.01, -0.01, 6e4, -6e4])
    assert torch.allclose(compress(x)[:3], x[:3], rtol=1e-4)
    assert torch.allclose(compress(x)[3:], torch.tensor([1.0, -1.0]) * math.log(1.2e5))
    assert compress(x.half()).dtype == torch.float32


def test_what_is_seen_of_a_step():
    latents = torch.arange(2 * 6 * 16.0).reshape(2, 6, 16)
    state = StepState(
        index=3,
        num_evaluations=10,
        sigma=torch.tensor(0.75),
        sigma_next=torch.tensor(0.5),
        cond_sigma=torch.tensor([0.625, 0.25]),
        latents=latents,
        velocity=-latents,
        prompt_embeds=torch.ones(2, 3, 8),
        pooled_prompt_embeds=torch.zeros(2, 6),
        token_grid=(2, 3),
    )
    observation = Observation.of(state)
    assert torch.equal(observation.latents, unpacked(latents, (2, 3))[None])
    assert torch.equal(observation.velocity, -observation.latents)
    assert observation.sigma.tolist() == [[0.75, 0.75]]
    assert observation.sigma_next.tolist() == [[0.5, 0.5]]
    assert observation.cond_sigma.tolist() == [[0.625, 0.25]]
    assert torch.equal(observation.progress, torch.tensor([[0.3, 0.3]]))
    assert observation.prompt_embeds is state.prompt_embeds
    assert observation.pooled_prompt_embeds is state.pooled_prompt_embeds


def test_observations_are_stacked_joined_and_selected_in_order():
    """Two decisions of the images 0 and 1, beside two decisions of the image 2, are those of all
    three; the images 2 and 0 of these are in that order."""
    whole = seen(batch=3, decisions=2)

    def part(decision, images):
        kept = whole.select(images)
        return replace(kept, **{n: getattr(kept, n)[[decision]] for n in SERIES})

    left, right = (Observation.stack([part(0, i), part(1, i)]) for i in ([0, 1], [2]))
    joined = Observation.join([left, right])
    for field in fields(Observation):
        assert torch.equal(getattr(joined, field.name), getattr(whole, field.name)), field.name
        chosen = getattr(whole.select([2, 0]), field.name)
        images = 1 if field.name in SERIES else 0
        expected = getattr(whole, field.name).index_select(images, torch.tensor([2, 0]))
        assert torch.equal(chosen, expected), field.name


SERIES = ("latents", "velocity", "sigma", "sigma_next", "cond_sigma", "progress")


def test_an_untrained_module_answers_two_and_two_to_the_bit():
    answer = answers(tiny(), seen(batch=3, decisions=4))
    assert torch.equal(answer, torch.ones(2, 4, 3))
    assert not torch.equal(answers(randomised(tiny()), seen()), torch.ones(2, 1, 2))


@pytest.mark.parametrize("name", [field.name for field in fields(Observation)])
def test_every_input_of_eq_7_is_seen(name):
    tpm, observation = randomised(tiny()), seen()
    other = replace(observation, **{name: getattr(observation, name) * 0.5 + 0.2})
    difference = answers(tpm, other) - answers(tpm, observation)
    assert difference.abs().amax(dim=(0, 1)).min() > 1e-4  # for each image


def test_a_token_holds_the_three_patches_of_its_place():
    """Where nothing is mixed, a token is x, v and x̂0 = x − t·v there, tamed."""
    tpm, observation = tiny(width=48), seen(batch=2, size=(2, 4))  # 3 · 4 channels · 2 · 2 places
    with torch.no_grad():
        tpm.patches.weight.copy_(torch.eye(48))
        for parameter in (tpm.patches.bias, *tpm.places.parameters()):
            parameter.zero_()
    x, v = observation.latents[0], observation.velocity[0]
    three = torch.cat([x, v, x - observation.sigma[0][:, None, None, None] * v], dim=1)
    left, right = three[..., :2].flatten(1), three[..., 2:].flatten(1)
    assert torch.allclose(tpm._patches(observation), compress(torch.stack([left, right], dim=1)))


def test_places_are_seen():
    tpm, observation = randomised(tiny()), seen()
    for axis in (-1, -2):
        rolled = {n: getattr(observation, n).roll(2, axis) for n in ("latents", "velocity")}
        difference = answers(tpm, replace(observation, **rolled)) - answers(tpm, observation)
        assert difference.abs().amax(dim=(0, 1)).min() > 1e-4


def test_gradients_reach_every_weight_after_the_first_step():
    tpm = tiny()
    optimizer = torch.optim.AdamW(tpm.parameters(), lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        alpha, beta = tpm(seen())
        (alpha - 2 * beta).sum().backward()
        optimizer.step()
    without = [n for n, p in tpm.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_blocks_start_as_the_identity_and_yet_learn():
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(*(Block(32, 4) for _ in range(4)))
    tokens = 3 * torch.randn(2, 20, 32)
    assert_rounded(blocks(tokens), tokens, terms(blocks))
    blocks(tokens).square().sum().backward()
    assert all(p.grad.abs().max() > 1e-3 for p in blocks.parameters())
    assert not torch.allclose(randomised(blocks)(tokens), tokens, atol=0.1)


def test_halves_that_start_equal_drift_apart():
    """Otherwise half of the heads and of the hidden units would be lost for good."""
    torch.manual_seed(0)
    block = Block(16, 2)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    block(torch.randn(4, 5, 16)).square().mean().backward()
    optimizer.step()
    for weight in (block.up.weight, *block.project.weight.chunk(3)):
        first, second = weight.chunk(2)
        assert (first - second).abs().max() > 1e-4


def test_half_precision_inputs_at_the_end_of_their_range_stay_finite():
    tpm, observation = randomised(tiny()), seen(dtype=torch.float16)
    spatial = observation.latents.sign() * 6e4
    extreme = replace(
        observation,
        latents=spatial,
        velocity=-spatial,
        sigma=torch.ones_like(observation.sigma),
        prompt_embeds=observation.prompt_embeds.sign() * 6e4,
        pooled_prompt_embeds=observation.pooled_prompt_embeds.sign() * 6e4,
    )
    assert extreme.latents.dtype == extreme.prompt_embeds.dtype == torch.float16
    answer = answers(tpm, extreme)
    assert answer.isfinite().all()
    assert answer.min() > 0
    answer.log().sum().backward()
    assert all(p.grad.isfinite().all() for p in tpm.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_inputs_are_computed_on_in_full(dtype):
    tpm, low = randomised(tiny()), seen(dtype=dtype)
    full = {f.name: getattr(low, f.name).float() for f in fields(Observation)}
    assert torch.equal(answers(tpm, low), answers(tpm, Observation(**full)))


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 7), st.integers(1, 4), st.integers(2, 90)
)
@settings(max_examples=30)
def test_any_height_width_text_length_and_number_of_steps(height, width, tokens, decisions, steps):
    observation = seen(2, decisions, (height, width), tokens, steps)
    answer = answers(TRAINED, observation)
    assert answer.shape == (2, decisions, 2)
    assert answer.isfinite().all()
    assert answer.min() > 0


TRAINED = randomised(tiny(patch_size=4))


def test_a_ragged_edge_is_padded_with_zeros():
    ragged = seen(size=(5, 7))
    padded = {
        n: torch.nn.functional.pad(getattr(ragged, n), (0, 1, 0, 3))
        for n in ("latents", "velocity")
    }
    assert torch.equal(answers(TRAINED, ragged), answers(TRAINED, replace(ragged, **padded)))


def test_images_and_decisions_do_not_mix():
    """A batch of 3 is three of 1, and 4 decisions in one call are four calls."""
    whole = seen(batch=3, decisions=4)
    together = answers(TRAINED, whole)
    assert together.std(dim=(1, 2)).min() > 1e-3  # they differ from one another
    for image in range(3):
        alone = answers(TRAINED, whole.select([image]))
        assert_rounded(alone[:, :, 0], together[:, :, image], terms(TRAINED))
    for k in range(4):
        single = replace(whole, **{n: getattr(whole, n)[[k]] for n in SERIES})
        assert_rounded(answers(TRAINED, single)[:, 0], together[:, k], terms(TRAINED))


def backbone_channels(name: str) -> tuple[int, int, int]:
    """Latent, prompt and pooled channels of FLUX.1-dev, SD3.5 and mini."""
    if name == "mini":
        config = load_backbone("mini").pipe.transformer.config
        return config.in_channels, config.joint_attention_dim, config.pooled_projection_dim
    return 16, 4096, {"flux": 768, "sd35": 2048}[name]


def module_of(name):
    recipe = load_recipe(name)
    channels = backbone_channels(recipe.backbone)
    return TimestepPredictionModule(*channels, recipe.bound, **recipe.tpm.model_dump())


@pytest.mark.parametrize("name", [name for name in names() if not name.startswith("mini")])
def test_the_recipes_of_large_models_make_modules_of_one_to_five_million_parameters(name):
    tpm = module_of(name)
    assert 1e6 <= sum(p.numel() for p in tpm.parameters()) <= 5e6
    assert len(tpm.blocks) == 4


@pytest.mark.parametrize("name", ["mini", "mini-joint", "mini-lifted"])
def test_the_recipes_of_mini_make_modules_that_are_small_beside_its_transformer(name):
    backbone = load_backbone("mini").pipe.transformer
    own, whole = (sum(p.numel() for p in m.parameters()) for m in (module_of(name), backbone))
    assert own < whole / 40


def test_nothing_normalises_and_nothing_drops_out():
    kinds = {type(module).__name__ for module in tiny().modules()}
    assert {"Block", "Linear"} <= kinds
    assert not [kind for kind in kinds if "Norm" in kind or "Drop" in kind]
    tpm = randomised(tiny())
    assert torch.equal(answers(tpm.train(), seen()), answers(tpm.eval(), seen()))


@pytest.mark.parametrize(("width", "heads"), [(16, 6), (15, 3), (16, 1)])
def test_heads_are_even_and_divide_the_width(width, heads):
    with pytest.raises(InputError, match=f"not {heads} and {width}"):
        tiny(width=width, heads=heads)
