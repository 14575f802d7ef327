"""The same thing inside an unchanged diffusers pipeline."""

import copy
import inspect

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
)
from PIL import Image

from asyncdiff_cli.engine import (
    AsyncDiffError,
    FixedDeviation,
    InputError,
    ScheduledDeviation,
    Synchronous,
    attach,
)
from asyncdiff_cli.engine.backbones.schedulers import make_scheduler
from tests.conftest import Case, make_case, quiet, seeded
from tests.helpers.solvers import SOLVERS, with_scheduler

POLICIES = [
    Synchronous(),
    FixedDeviation(0.5),
    FixedDeviation([0.8, -0.6]),
    ScheduledDeviation([0.9, 0.0, -0.4]),
]


@pytest.mark.parametrize("policy", POLICIES)
def test_attach_equals_sample_to_the_last_bit(case: Case, policy):
    result = case.draw(policy, 1.5)
    with attach(case.pipe, policy, gamma=1.5) as trace:
        images = case.draw_stock()
    assert torch.equal(images, result.images)
    assert torch.equal(trace.cond_sigmas, result.cond_sigmas)
    assert torch.equal(trace.deviations, result.deviations)


@pytest.mark.parametrize(("name", "scheduler"), SOLVERS)
def test_under_every_solver(name: str, scheduler: str):
    case = with_scheduler(name, scheduler)
    result = case.draw(FixedDeviation([0.8, -0.6]), 1.5)
    with attach(case.pipe, FixedDeviation([0.8, -0.6]), 1.5) as trace:
        images = case.draw_stock()
    assert torch.equal(images, result.images)
    assert torch.equal(trace.cond_sigmas, result.cond_sigmas)


class Recording(FixedDeviation):
    """Keeps what it is asked."""

    def __init__(self, deviation):
        super().__init__(deviation)
        object.__setattr__(self, "states", [])

    def __call__(self, state):
        self.states.append(state)
        return super().__call__(state)


def test_a_policy_is_told_the_same_either_way(case: Case):
    ours, attached = Recording(0.5), Recording(0.5)
    case.draw(ours, 1.5)
    with attach(case.pipe, attached, 1.5):
        case.draw_stock()
    assert len(ours.states) == len(attached.states) == 3
    for one, other in zip(ours.states, attached.states, strict=True):
        for field, value in vars(one).items():
            told = vars(other)[field]
            same = torch.equal(value, told) if torch.is_tensor(value) else value == told
            assert same, field


def test_several_calls_in_one_block(case: Case):
    with attach(case.pipe, FixedDeviation(0.5), 1.5) as trace:
        assert trace.cond_sigmas.numel() == trace.deviations.numel() == 0
        first = case.draw_stock()
        case.draw_stock(num_inference_steps=2)
        assert trace.cond_sigmas.shape == (2, 2)
        again = case.draw_stock()
        assert trace.cond_sigmas.shape == (2, 4)
    assert torch.equal(first, again)


def test_several_images_per_prompt():
    case = make_case("sd3")
    settings = {"num_images_per_prompt": 2, "generator": seeded(4)}
    with attach(case.pipe, FixedDeviation([0.0, 0.5, 0.0, 0.5])) as trace:
        images = case.draw_stock(**settings)
    assert trace.deviations[:, 0].tolist() == [0.0, 0.5, 0.0, 0.5]
    stock = case.draw_stock(num_images_per_prompt=2, generator=seeded(4))
    same = [torch.allclose(one, other, atol=1e-5) for one, other in zip(images, stock, strict=True)]
    assert same == [True, False, True, False]


def state_of(pipe):
    hooks = {
        name: (
            list(module._forward_hooks),
            list(module._forward_pre_hooks),
            "forward" in vars(module),
        )
        for name, module in pipe.transformer.named_modules()
    }
    return (
        type(pipe.scheduler),
        sorted(vars(pipe.scheduler)),
        hooks,
        pipe.scheduler,
        pipe.transformer,
    )


@pytest.mark.parametrize("failing", [False, True])
def test_the_pipeline_is_as_it_was_afterwards(case: Case, failing: bool):
    before = case.draw_stock()
    state = state_of(case.pipe)

    def callback(pipe, step, timestep, kwargs):
        if failing and step == 2:
            raise KeyboardInterrupt
        return kwargs

    try:
        with attach(case.pipe, FixedDeviation(0.5), 1.5):
            case.draw_stock(callback_on_step_end=callback)
    except KeyboardInterrupt:
        assert failing
    assert state_of(case.pipe) == state
    assert torch.equal(case.draw_stock(), before)


def test_a_call_after_an_interrupted_one_starts_afresh():
    case = make_case("flux-cfg")

    def interrupt(pipe, step, timestep, kwargs):
        raise RuntimeError("interrupted")

    with attach(case.pipe, FixedDeviation(0.5), 1.5):
        with pytest.raises(RuntimeError, match="interrupted"):
            case.draw_stock(callback_on_step_end=interrupt)
        images = case.draw_stock()
    assert torch.equal(images, case.draw(FixedDeviation(0.5), 1.5).images)


def test_the_scheduler_looks_like_itself():
    pipe = make_case("sd3").pipe
    scheduler_class = type(pipe.scheduler)
    with attach(pipe, FixedDeviation(0.5)):
        assert isinstance(pipe.scheduler, scheduler_class)
        assert type(pipe.scheduler).__name__ == scheduler_class.__name__
        for method in ("set_timesteps", "step"):
            observed = inspect.signature(getattr(pipe.scheduler, method))
            assert observed == inspect.signature(getattr(scheduler_class(), method))


def test_deep_copies_go_their_own_way():
    case = make_case("sd3")
    stock = case.draw_stock()
    with attach(case.pipe, FixedDeviation(0.5), 1.5) as trace:
        twin = Case(copy.deepcopy(case.pipe), case.stock, case.ours)
        images = case.draw_stock()
        times = trace.cond_sigmas
        assert torch.equal(twin.draw_stock(), stock)
        assert torch.equal(trace.cond_sigmas, times)
    assert not torch.equal(images, stock)
    assert torch.equal(twin.draw_stock(), stock)


def test_replacing_parts_inside_is_an_error_and_not_a_synchronous_image():
    case = make_case("flux")
    pipe = case.pipe
    scheduler, transformer = pipe.scheduler, pipe.transformer
    with attach(pipe, FixedDeviation(0.5)):
        pipe.scheduler = make_scheduler("unipc", "flux", scheduler.config)
        with pytest.raises(AsyncDiffError, match="scheduler was replaced"):
            case.draw_stock()
        pipe.scheduler = scheduler
        pipe.transformer = copy.deepcopy(transformer)
        with pytest.raises(AsyncDiffError, match="transformer was replaced"):
            case.draw_stock()


def compiled_in_place(pipe):
    pipe.transformer.compile(backend="eager", fullgraph=True)


def compiled_as_another(pipe):
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")


@pytest.mark.parametrize(
    ("name", "compiled"),
    [("flux", compiled_in_place), ("sd3", compiled_as_another)],
)
def test_a_model_that_was_compiled_and_ran_before_is_told_its_times(name, compiled):
    """Dynamo does not look for hooks that come later; and compiles nothing in a second block."""
    torch._dynamo.reset()
    case = make_case(name)
    stock, expected = case.draw_stock(), case.draw(FixedDeviation(0.5), 1.5).images
    compiled(case.pipe)
    assert torch.equal(case.draw_stock(), stock)
    with attach(case.pipe, FixedDeviation(0.5), 1.5):
        assert torch.equal(case.draw_stock(), expected)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert torch.equal(case.draw_stock(), stock)
        with attach(case.pipe, FixedDeviation(-0.5), 1.5):
            assert not torch.equal(case.draw_stock(), expected)
    assert torch.equal(case.draw(FixedDeviation(0.5), 1.5).images, expected)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert torch.equal(case.draw(FixedDeviation(0.5), 1.5).images, expected)


@pytest.mark.parametrize("way", ["sample", "attach"])
def test_a_model_that_does_not_look_at_its_time_is_an_error(way):
    case = make_case("flux")
    transformer = case.pipe.transformer
    embed = transformer.time_text_embed.forward
    transformer.forward = replaced(transformer.forward, transformer, embed)
    draw = {"sample": lambda: case.draw(FixedDeviation(0.5)), "attach": lambda: attached(case)}[way]
    with pytest.raises(AsyncDiffError, match="ran without its conditioning time"):
        draw()


def attached(case):
    with attach(case.pipe, FixedDeviation(0.5)):
        return case.draw_stock()


def replaced(forward, transformer, embed):
    """A forward that has its own way to the embedding, as a traced or exported one has."""

    def run(*args, **kwargs):
        watched = transformer._modules["time_text_embed"]
        transformer._modules["time_text_embed"] = embed
        try:
            return forward(*args, **kwargs)
        finally:
            transformer._modules["time_text_embed"] = watched

    return run


def test_a_model_without_the_place_of_its_time_is_named(flux):
    flux.transformer = torch.nn.DataParallel(flux.transformer)
    with (
        pytest.raises(InputError, match="DataParallel has no time_text_embed"),
        attach(flux, Synchronous()),
    ):
        pass


def test_one_transformer_in_two_pipelines_is_conditioned_by_one_of_them(flux):
    other = FluxImg2ImgPipeline(**{**flux.components, "scheduler": copy.deepcopy(flux.scheduler)})
    with attach(flux, Synchronous()):
        with pytest.raises(InputError, match="conditioned already"), attach(other, Synchronous()):
            pass
        assert flux("a cat", num_inference_steps=1, output_type="pt").images.isfinite().all()


def test_nan_names_the_step():
    case = make_case("flux")

    def poison(pipe, step, timestep, kwargs):
        return {"latents": kwargs["latents"] * (torch.nan if step == 1 else 1)}

    with (
        attach(case.pipe, FixedDeviation(0.5)),
        pytest.raises(AsyncDiffError, match="after step 3 of 4"),
    ):
        case.draw_stock(callback_on_step_end=poison)


@pytest.mark.parametrize("gamma", [float("nan"), float("inf"), "2"])
def test_gamma_is_a_number(gamma):
    with (
        pytest.raises(InputError, match="gamma"),
        attach(make_case("sd3").pipe, Synchronous(), gamma),
    ):
        pass


@pytest.mark.parametrize("policy", [None, "fixed:0.5", Synchronous])
def test_a_policy_is_an_object_of_one(policy):
    refused = pytest.raises(InputError, match="a policy is an object such as FixedDeviation")
    with refused, attach(make_case("sd3").pipe, policy):
        pass


def test_attaching_twice_is_refused(sd3):
    with attach(sd3, Synchronous()):
        with pytest.raises(InputError, match="attached already"), attach(sd3, Synchronous()):
            pass
        assert sd3("a cat", num_inference_steps=1, output_type="pt").images.isfinite().all()


class OtherPipeline(FluxPipeline):
    pass


def test_other_pipelines_and_schedulers_are_refused_by_name(flux, sd3):
    other = OtherPipeline(**flux.components)
    with (
        pytest.raises(InputError, match=r"'OtherPipeline'.*FluxPipeline"),
        attach(other, Synchronous()),
    ):
        pass
    sd3.scheduler = DDIMScheduler()
    with pytest.raises(InputError, match="DDIMScheduler"), attach(sd3, Synchronous()):
        pass


@pytest.mark.parametrize(
    ("name", "pipeline_class"),
    [
        ("sd3", StableDiffusion3Img2ImgPipeline),
        ("sd3", StableDiffusion3InpaintPipeline),
        ("flux", FluxImg2ImgPipeline),
        ("flux", FluxInpaintPipeline),
    ],
)
def test_image_to_image_starts_late(name: str, pipeline_class):
    """The first evaluation is synchronous at the time where the run starts, and t_0 is that."""
    components = make_case(name).pipe.components
    if name == "sd3":
        components = {k: v for k, v in components.items() if v is not None}
    pipe = quiet(pipeline_class(**components))
    settings = {"image": Image.effect_noise((16, 16), 50).convert("RGB"), "strength": 0.5}
    if "Inpaint" in pipeline_class.__name__:
        settings["mask_image"] = Image.new("L", (16, 16), 255)

    def draw():
        return pipe(
            "a cat",
            height=16,
            width=16,
            num_inference_steps=6,
            generator=seeded(1),
            output_type="pt",
            **settings,
        ).images

    stock = draw()
    with attach(pipe, FixedDeviation(0.5), 0.0) as trace:
        assert torch.equal(draw(), stock)
    assert torch.equal(trace.cond_sigmas[0], pipe.scheduler.sigmas[3:6])
    with attach(pipe, FixedDeviation(-1.0), 2.0) as trace:
        assert not torch.equal(draw(), stock)
    sigmas = pipe.scheduler.sigmas
    late = [sigmas[3], sigmas[3], min(sigmas[4] - (sigmas[5] - sigmas[4]), sigmas[3])]
    assert torch.allclose(trace.cond_sigmas[0], torch.stack(late))
