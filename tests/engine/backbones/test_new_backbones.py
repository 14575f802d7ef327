"""The families that joined SD3 and FLUX.1, and one that joins here as docs/extend.md shows."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
from PIL import Image

from asyncdiff_cli.engine import (
    REGISTRY,
    AsyncFlowMatchEulerScheduler,
    BackboneEntry,
    FixedDeviation,
    InputError,
    LearnedDeviation,
    TimestepPredictionModule,
    attach,
    backbone_from_pipeline,
    load_backbone,
    sample,
)
from asyncdiff_cli.engine.backbones.adapters import ADAPTERS, Adapter, Guidance, TextConditions
from asyncdiff_cli.engine.backbones.registry import anonymous_entry
from asyncdiff_cli.engine.drawing.canvas import joined
from asyncdiff_cli.engine.policies.observation import PADDING, Observation
from asyncdiff_cli.engine.policies.per_image import EachPolicy
from tests.conftest import (
    LATER,
    PROMPTS,
    TINY,
    Case,
    make_case,
    quiet,
    seeded,
    t5_encoder,
    t5_tokenizer,
    tiny_flux,
    vae,
)
from tests.helpers.modules import SIZE, randomised
from tests.helpers.rounding import assert_rounded, rounding, terms
from tests.helpers.solvers import with_scheduler

SIZES = {"height": 16, "width": 24}


def tpm_for(case: Case) -> TimestepPredictionModule:
    torch.manual_seed(0)
    return randomised(TimestepPredictionModule(**case.backbone.adapter.channels, bound=1.0, **SIZE))


def assert_stock(case: Case) -> None:
    """Synchronous, it is the untouched pipeline; and asynchronous, it is that when attached."""
    assert torch.equal(case.draw(FixedDeviation(0.7), 0.0).images, case.draw_stock())
    result = case.draw(FixedDeviation([0.8, -0.6]), 1.5)
    with attach(case.pipe, FixedDeviation([0.8, -0.6]), 1.5) as trace:
        assert torch.equal(case.draw_stock(), result.images)
    assert torch.equal(trace.cond_sigmas, result.cond_sigmas)


SOLVERS = [
    *((name, solver) for name in ("flux2", "flux2-klein") for solver in ("dpmpp", "unipc")),
    *(("qwen-image", solver) for solver in ("dpmpp", "unipc")),
]
"""Z-Image's pipeline hands over its grid as a list, which no other scheduler takes."""


@pytest.mark.parametrize(("name", "scheduler"), SOLVERS)
def test_the_solvers_that_a_pipeline_can_run_are_its_own_bit_for_bit(name, scheduler):
    assert_stock(with_scheduler(name, scheduler))


@pytest.mark.parametrize("scheduler", ["dpmpp", "unipc"])
def test_z_image_runs_under_more_solvers_than_its_pipeline(scheduler):
    case = with_scheduler("z-image", scheduler)
    result = case.draw(FixedDeviation(0.5), 1.5)
    assert result.images.isfinite().all()
    euler = make_case("z-image").draw(FixedDeviation(0.5), 1.5)
    assert not torch.equal(result.images, euler.images)


@pytest.mark.parametrize("name", ["qwen-image-plain", "z-image-plain"])
def test_without_guidance(name):
    case = make_case(name)
    assert_stock(case)
    guided = make_case(name.removesuffix("-plain"))
    assert not torch.equal(case.draw().images, guided.draw().images)


def klein(guidance: float, is_distilled: bool) -> Case:
    pipe = TINY["flux2-klein"]()
    pipe.register_to_config(is_distilled=is_distilled)
    both = {**SIZES, "guidance_scale": guidance, "max_sequence_length": 36}
    return Case(quiet(pipe), both, both)


def test_a_distilled_klein_takes_no_guidance():
    plain, distilled = klein(1.0, False), klein(4.0, True)
    assert_stock(plain)
    assert_stock(distilled)
    assert torch.equal(plain.draw().images, distilled.draw().images)
    assert not torch.equal(plain.draw().images, klein(4.0, False).draw().images)


def test_flux_schnell_has_no_embedded_guidance():
    pipe = tiny_flux()
    config = {**pipe.transformer.config, "guidance_embeds": False}
    pipe.transformer = type(pipe.transformer).from_config(config)
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    both = {**SIZES, "guidance_scale": 0.0, "max_sequence_length": 256}
    assert_stock(Case(quiet(pipe), both, both))


def arriving(case: Case, draw) -> list[torch.Tensor]:
    """The times that the embedding of the time computes its sines of, evaluation by evaluation."""
    transformer, times = case.pipe.transformer, []
    family = case.backbone.adapter.family
    if family == "z-image":
        embedder = transformer.t_embedder
        sines = embedder.timestep_embedding
        embedder.timestep_embedding = lambda t, dim: (times.append(t.clone()), sines(t, dim))[1]
        draw()
        del embedder.timestep_embedding
        return [1 - t / 1000 for t in times]
    embedder = getattr(transformer, case.backbone.adapter.time_embedding)
    hook = embedder.time_proj.register_forward_pre_hook(lambda _, args: times.append(args[0]))
    draw()
    hook.remove()
    if family == "qwen-image":
        return times[::2]  # of the negative branch too
    return [t / 1000 for t in times[::2]]  # of the guidance, or of the negative branch, too


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_time_arrives_in_fp32_whatever_the_dtype(name, dtype):
    case = make_case(name)
    case.pipe.to(dtype)
    results = []
    times = arriving(
        case, lambda: results.append(case.draw(FixedDeviation([0.5, -0.25]), 0.51, generator=None))
    )
    told = results[0].cond_sigmas
    assert len(times) == 4
    for k in range(1, 4):
        assert times[k].dtype is torch.float32
        branches = len(times[k]) // 2
        assert torch.allclose(times[k], told[:, k].repeat(branches), atol=2e-7)
    assert (told[0] < told[1])[1:].all()


def singly(case: Case) -> list[TextConditions]:
    """Each prompt encoded alone, as for a training."""
    adapter, ours = case.backbone.adapter, case.ours
    scale = ours.get("guidance_scale", 1.0)
    guidance = Guidance(scale, ours.get("true_cfg_scale", scale))
    negative = [ours["negative_prompt"]] if "negative_prompt" in ours else None
    names = ("prompt_embeds", "pooled_prompt_embeds", "prompt_embeds_mask")
    none = {branch + name: None for branch in ("", "negative_") for name in names}
    length = ours.get("max_sequence_length")
    with torch.no_grad():
        return [
            adapter.encode(
                [prompt], negative, none, adapter.does_cfg(guidance, negative is not None), length
            )
            for prompt in PROMPTS
        ]


def draw_of(case: Case, policy, texts: list[TextConditions], images: list[int], gamma=1.5):
    settings = {k: v for k, v in case.ours.items() if k != "negative_prompt"}
    noise = [seeded(2)[i] for i in images]
    return sample(
        case.backbone,
        policy=policy,
        gamma=gamma,
        num_inference_steps=4,
        output_type="pt",
        generator=noise,
        **settings,
        **joined([texts[i] for i in images]),
    )


@pytest.mark.parametrize("name", [*LATER, "qwen-image-plain", "z-image-plain"])
def test_prompts_of_several_lengths_share_a_batch(name):
    """A learned module too sees of each image its own text, and none of the padding."""
    case = make_case(name)
    texts = singly(case)
    lengths = {text.prompt_embeds.shape[1] for text in texts}
    assert len(lengths) == (1 if name.startswith("flux2") else 2)
    policy = LearnedDeviation(tpm_for(case))
    count = case.terms + 3 * terms(policy.tpm)
    together = draw_of(case, policy, texts, [0, 1])
    for i in (0, 1):
        alone = draw_of(case, policy, texts, [i])
        assert_rounded(together.deviations[i], alone.deviations[0], count)
        assert_rounded(together.images[i], alone.images[0], count)
    assert_rounded(together.images, case.draw(policy, 1.5).images, count)
    each = draw_of(case, EachPolicy([policy, FixedDeviation(0.3)], [1.5, 1.0]), texts, [0, 1], 1.0)
    assert_rounded(each.images[0], together.images[0], count)
    assert (each.images[1] - together.images[1]).abs().max() > 10 * rounding(count)


def test_observations_of_texts_of_several_lengths_are_joined():
    case = make_case("qwen-image")
    texts, tpm, parts = singly(case), tpm_for(case), []

    class Recording(LearnedDeviation):
        def __call__(self, state):
            parts.append(Observation.of(state))
            return super().__call__(state)

    for images in ([0], [1], [0, 1]):
        draw_of(case, Recording(tpm), texts, images)
    first, second, both = (Observation.stack(parts[k : k + 3]) for k in (0, 3, 6))
    whole = Observation.join([first, second])
    assert whole.prompt_embeds.shape == both.prompt_embeds.shape
    assert torch.equal(whole.prompt_embeds == PADDING, both.prompt_embeds == PADDING)
    with torch.no_grad():
        for ours, theirs in zip(tpm(whole), tpm(both), strict=True):
            assert_rounded(ours, theirs, case.terms + terms(tpm))  # of latents drawn alone
        alone = tpm(first)[0]
    assert_rounded(alone, tpm(whole)[0][:, :1], terms(tpm))


@pytest.mark.parametrize("name", LATER)
def test_embeddings_take_the_place_of_prompts(name):
    case = make_case(name)
    bare = copy.copy(case.pipe)
    bare.text_encoder = bare.tokenizer = None
    twin = Case(bare, {}, case.ours)
    expected = case.draw(FixedDeviation(0.5)).images
    result = draw_of(twin, FixedDeviation(0.5), singly(case), [0, 1], gamma=1.0)
    assert_rounded(result.images, expected, case.terms)
    with pytest.raises(InputError, match="no text encoders: pass prompt_embeds, and the negative"):
        twin.draw()


def test_z_image_takes_lists_of_embeddings_as_its_pipeline_does():
    case = make_case("z-image")
    with torch.no_grad():
        embeds, negatives = case.pipe.encode_prompt([*PROMPTS], None, max_sequence_length=36)
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negatives}
    settings = {**SIZES, "num_inference_steps": 4, "output_type": "pt", "guidance_scale": 3.0}
    stock = case.pipe(**given, **settings, generator=seeded(2)).images
    ours = sample(case.backbone, **given, **settings, generator=seeded(2))
    assert torch.equal(ours.images, stock)


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        ("flux2", {"negative_prompt": "x"}, r"FLUX.2 \[dev\] takes no negative prompt"),
        ("qwen-image", {"prompts": None}, "pass either prompts or prompt_embeds"),
        (
            "qwen-image",
            {"prompts": None, "prompt_embeds": torch.zeros(3, 5)},
            r"prompt_embeds are \[images, tokens, channels\], not \[3, 5\]",
        ),
        (
            "qwen-image",
            {
                "prompts": None,
                "prompt_embeds": torch.zeros(1, 5, 16),
                "prompt_embeds_mask": torch.ones(1, 4),
            },
            r"prompt_embeds_mask \[1, 4\] does not fit the embeddings \[1, 5, 16\]",
        ),
        ("z-image", {"pooled_prompt_embeds": torch.zeros(2, 4)}, "takes no pooled_prompt_embeds"),
        (
            "flux2",
            {
                "prompts": None,
                "prompt_embeds": torch.zeros(1, 5, 24),
                "prompt_embeds_mask": torch.ones(1, 5),
            },
            "takes prompts of one length, and no mask",
        ),
        (
            "z-image",
            {
                "prompts": None,
                "prompt_embeds": [torch.zeros(5, 16)],
                "prompt_embeds_mask": torch.ones(1, 5),
            },
            "a mask belongs to embeddings in one tensor",
        ),
    ],
)
def test_what_a_family_cannot_use_is_refused_in_one_line(name, settings, line):
    backbone = backbone_from_pipeline(quiet(TINY[name]()))
    with pytest.raises(InputError, match=line) as caught:
        sample(backbone, **{"prompts": PROMPTS, **SIZES, "num_inference_steps": 1, **settings})
    assert "\n" not in str(caught.value)


def test_flux2_with_a_reference_image_may_be_attached():
    """The tokens of the reference follow those of the latents, and have places of their own."""
    case = make_case("flux2")
    reference = Image.effect_noise((64, 64), 50).convert("RGB")
    stock = case.draw_stock(image=reference)
    policy = LearnedDeviation(tpm_for(case))
    with attach(case.pipe, policy, 0.0):
        assert torch.equal(case.draw_stock(image=reference), stock)
    with attach(case.pipe, policy, 1.5) as trace:
        assert not torch.equal(case.draw_stock(image=reference), stock)
    assert trace.deviations.shape == (2, 3)


@pytest.mark.parametrize("family", LATER)
def test_a_directory_loads_to_the_pipeline_that_it_holds(family, tmp_path):
    pipe = TINY[family]()
    pipe.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert backbone.adapter.family == family
    case = make_case(family)
    ours = Case(backbone.pipe, {}, case.ours)
    assert torch.equal(ours.draw().images, case.draw().images)
    named = load_backbone(family, model_path=tmp_path)
    assert named.entry is REGISTRY[family]


def test_qwen_image_is_guided_by_its_model_card_s_negative_prompt(tmp_path):
    tiny_qwen = TINY["qwen-image"]()
    tiny_qwen.save_pretrained(tmp_path)
    settings = {**SIZES, "num_inference_steps": 3, "output_type": "pt"}
    pipe = quiet(tiny_qwen)
    stock = {
        negative: pipe(
            PROMPTS,
            negative_prompt=None if negative is None else [negative] * 2,
            true_cfg_scale=4.0,
            generator=seeded(2),
            **settings,
        ).images
        for negative in (" ", None)
    }
    named = load_backbone("qwen-image", model_path=tmp_path)
    unnamed = backbone_from_pipeline(pipe)
    for backbone, negative in ((named, " "), (unnamed, None)):
        ours = sample(backbone, PROMPTS, generator=seeded(2), **settings)
        assert torch.equal(ours.images, stock[negative])


def test_z_image_draws_its_pipeline_s_size_by_default():
    assert backbone_from_pipeline(quiet(TINY["z-image"]())).size == 1024
    assert backbone_from_pipeline(quiet(TINY["qwen-image"]())).size == 16


def test_the_entries_without_a_measured_policy_are_synchronous():
    measured = {"mini", "sd35", "flux"}
    assert {e.name for e in REGISTRY.values() if e.policy != "baseline"} == measured
    for entry in REGISTRY.values():
        assert entry.family in {adapter.family for adapter in ADAPTERS.values()}
        if entry.name not in measured:
            assert not entry.modules
    schnell = REGISTRY["flux-schnell"]
    assert (schnell.num_inference_steps, schnell.guidance_scale) == (4, 0.0)
    assert schnell.max_sequence_length == 256


@pytest.mark.parametrize("adapter", ADAPTERS.values())
def test_a_pipeline_without_a_name_has_its_family_s_settings(adapter):
    entry = anonymous_entry("mine", adapter.family)
    assert (entry.name, entry.family, entry.repo) == ("mine", adapter.family, None)
    assert entry.size is None
    named = [e for e in REGISTRY.values() if e.family == adapter.family]
    assert entry.num_inference_steps in {e.num_inference_steps for e in named}


# docs/extend.md shows this class, and what the fixture below registers.
class AuraFlowAdapter(Adapter):
    family = "auraflow"
    time_embedding = "time_step_embed"  # the submodule of the transformer that embeds the time

    def model_time(self, cond_sigma):
        return cond_sigma  # in the units that this submodule takes; the default is 1000·t*

    def encode_branch(self, prompts, given, max_sequence_length):
        if given["prompt_embeds"] is not None:
            return TextConditions(given["prompt_embeds"])
        length = max_sequence_length or 256
        embeds = self.pipe.encode_prompt(prompts, None, False, max_sequence_length=length)[0]
        return TextConditions(embeds)

    def denoiser(self, text, guidance, height, width):
        branches = [text.negative, text] if text.negative else [text]
        embeds = torch.cat([branch.prompt_embeds for branch in branches])

        def velocity(latents, timestep):
            latents = torch.cat([latents] * len(branches))
            time = (timestep / 1000).expand(len(latents)).to(latents.dtype)
            v = self.pipe.transformer(latents, embeds, time).sample
            if not text.negative:
                return v
            negative, positive = v.chunk(2)
            return negative + guidance.scale * (positive - negative)

        return velocity


def tiny_aura_flow() -> AuraFlowPipeline:
    torch.manual_seed(0)
    return AuraFlowPipeline(
        transformer=AuraFlowTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pos_embed_max_size=64,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
        vae=vae(latent_channels=4),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
    )


@pytest.fixture
def aura_flow(monkeypatch):
    entry = BackboneEntry(
        name="auraflow",
        family="auraflow",
        repo="fal/AuraFlow-v0.3",
        num_inference_steps=50,
        guidance_scale=3.5,
        size=1024,
        policy="baseline",
        licence="Apache-2.0",
    )
    monkeypatch.setitem(ADAPTERS, AuraFlowPipeline, AuraFlowAdapter)
    monkeypatch.setitem(REGISTRY, entry.name, entry)
    pipe = tiny_aura_flow()
    pipe.vae.register_to_config(shift_factor=None)
    return quiet(pipe)


@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_the_readme_s_adapter_is_its_pipeline_bit_for_bit(aura_flow, guidance):
    both = {**SIZES, "guidance_scale": guidance}
    case = Case(aura_flow, both, both)
    assert_stock(case)
    assert case.backbone.size == 16
    policy = LearnedDeviation(tpm_for(case))
    result = case.draw(policy, 1.5)
    with attach(case.pipe, policy, 1.5) as trace:
        assert torch.equal(case.draw_stock(), result.images)
    assert torch.equal(trace.deviations, result.deviations)
    deviated = case.draw(FixedDeviation(0.5)).images
    own = aura_flow.scheduler.config
    aura_flow.scheduler = AsyncFlowMatchEulerScheduler.from_config(own, deviations=0.5)
    assert_rounded(case.draw_stock(), deviated, case.terms)


def test_the_readme_s_backbone_loads_by_its_name(aura_flow, tmp_path):
    aura_flow.save_pretrained(tmp_path)
    assert load_backbone("auraflow", model_path=tmp_path).entry is REGISTRY["auraflow"]
    assert load_backbone(str(tmp_path)).entry.guidance_scale == 3.5


def test_a_family_without_defaults_says_so(aura_flow, monkeypatch):
    monkeypatch.delitem(REGISTRY, "auraflow")
    with pytest.raises(InputError, match=r"no defaults for the family 'auraflow'.*REGISTRY"):
        backbone_from_pipeline(aura_flow)


def test_an_unknown_pipeline_says_how_to_add_an_adapter(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "AuraFlowPipeline"}')
    pipe = quiet(tiny_aura_flow())

    def attached():
        with attach(pipe, FixedDeviation(0.5)):
            pass

    for way in (
        lambda: backbone_from_pipeline(pipe),
        lambda: load_backbone(str(tmp_path)),
        attached,
    ):
        with pytest.raises(InputError, match="unknown pipeline class 'AuraFlowPipeline'") as caught:
            way()
        assert "docs/extend.md" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_page_shows_the_adapter_that_is_tested_here():
    page = (Path(__file__).parents[3] / "docs/extend.md").read_text(encoding="utf-8")
    ours = Path(__file__).read_text(encoding="utf-8")
    start = ours.index("class AuraFlowAdapter")
    assert ours[start : ours.index("def tiny_aura_flow", start)].strip() in page
