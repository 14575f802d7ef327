"""The time that reaches the model."""

import copy

import pytest
import torch

from asyncdiff_cli.engine import FixedDeviation, InputError, attach
from asyncdiff_cli.engine.backbones.adapters import ConditioningTime
from tests.conftest import make_case


def arriving_times(case, draw) -> list[torch.Tensor]:
    """What the sinusoidal embedding of the timestep is given, call by call."""
    times = []
    embedding = case.pipe.transformer.time_text_embed.time_proj
    hook = embedding.register_forward_pre_hook(lambda module, args: times.append(args[0].clone()))
    try:
        draw()
    finally:
        hook.remove()
    # FLUX embeds its guidance with the same module, after each time
    return (
        times[::2] if "Guidance" in type(case.pipe.transformer.time_text_embed).__name__ else times
    )


@pytest.mark.parametrize("name", ["sd3", "flux"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_time_arrives_in_fp32_whatever_the_dtype(name, dtype):
    case = make_case(name)
    case.pipe.to(dtype)
    results = {}

    def draw(gamma):
        results[gamma] = case.draw(FixedDeviation(0.5), gamma)

    one, other = (arriving_times(case, lambda g=gamma: draw(g)) for gamma in (0.50, 0.51))
    for k in range(1, 3):  # SD3's last time is clamped to σ_min
        assert one[k].dtype is torch.float32
        branches = len(one[k]) // 2
        assert torch.equal(one[k], 1000 * results[0.50].cond_sigmas[:, k].repeat(branches))
        assert (one[k] > other[k]).all()
    assert not torch.equal(results[0.50].latents, results[0.51].latents)


def test_only_the_images_that_deviate_see_another_time():
    """In bf16 the stock timestep of FLUX is rounded, and stays so for a synchronous image."""
    case = make_case("flux")
    case.pipe.to(torch.bfloat16)
    stock = arriving_times(case, case.draw_stock)
    mixed = arriving_times(case, lambda: case.draw(FixedDeviation([0.0, 0.5])))
    for k in range(4):
        assert mixed[k][0] == stock[k][0].float()
    assert all(mixed[k][1] < stock[k][1] for k in range(1, 4))


@pytest.mark.parametrize("name", ["sd3", "flux-cfg"])
def test_guidance_sees_one_time_in_both_branches(name):
    case = make_case(name)
    times = arriving_times(case, lambda: case.draw(FixedDeviation([0.3, -0.4]), 1.5))
    if name == "sd3":
        assert all(torch.equal(*t.chunk(2)) for t in times)
    else:
        assert len(times) == 8
        assert all(torch.equal(times[i], times[i + 1]) for i in range(0, 8, 2))


def test_the_text_and_the_guidance_embedding_are_untouched():
    case = make_case("flux")
    seen = []
    hook = case.pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    case.draw_stock()
    case.draw(FixedDeviation(0.5), 1.5)
    hook.remove()
    for stock, ours in zip(seen[:4], seen[4:], strict=True):
        for name in (
            "guidance",
            "encoder_hidden_states",
            "pooled_projections",
            "txt_ids",
            "img_ids",
        ):
            assert torch.equal(stock[name], ours[name])


def test_a_deep_copy_of_a_conditioned_model_is_inert_afterwards(flux):
    with ConditioningTime(flux.transformer) as time:
        time.set(torch.tensor(0.5), torch.tensor([0.25]))
        twin = copy.deepcopy(flux.transformer)
    embedding = twin.time_text_embed
    pooled, grid = torch.zeros(1, 16), torch.tensor([500.0])
    assert torch.equal(
        embedding(grid, grid, pooled), flux.transformer.time_text_embed(grid, grid, pooled)
    )


def test_an_embedding_that_is_not_given_the_time_first_is_refused(monkeypatch):
    case = make_case("flux")
    monkeypatch.setattr(type(case.backbone.adapter), "time_embedding", "norm_out")
    with pytest.raises(InputError, match=r"norm_out of a FluxTransformer2DModel .* of 3 axes"):
        case.draw(FixedDeviation(0.5))


@pytest.mark.parametrize("way", ["sample", "attach"])
def test_offloading_hooks_may_come_and_go_between_images(way):
    """`enable_model_cpu_offload` puts accelerate's hooks on and off around every image."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module

    case = make_case("flux")
    transformer = case.pipe.transformer
    expected = case.draw(FixedDeviation(0.5), 1.5).images

    def offload(*_):
        remove_hook_from_module(transformer, recurse=True)
        add_hook_to_module(transformer, AlignDevicesHook("cpu", io_same_device=True))

    offload()
    case.pipe.maybe_free_model_hooks = offload
    if way == "sample":
        images = [case.draw(FixedDeviation(0.5), 1.5).images for _ in range(3)]
    else:
        with attach(case.pipe, FixedDeviation(0.5), 1.5):
            images = [case.draw_stock() for _ in range(3)]
    assert all(torch.equal(image, expected) for image in images)
