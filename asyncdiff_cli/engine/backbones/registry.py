"""What is known by name before anything is loaded: backbones, their defaults, and solvers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asyncdiff_cli.engine.assets import ASSETS
from asyncdiff_cli.engine.errors import InputError

MINI_DIRECTORY = ASSETS / "mini"
BASELINE = "baseline"
"""The policy of synchronous sampling, t* = t: that of a backbone for which none better has been
measured."""

SCHEDULER_CLASSES = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
    "dpmpp": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""The solvers that integrate a flow-matching velocity, as diffusers names them."""
GUIDED_ABOVE = {"sd3": 1.0, "flux2-klein": 1.0, "qwen-image": 1.0, "z-image": 0.0}
"""The families of the registry that evaluate a second branch, and the guidance above which."""
EDITING_FAMILIES = ("flux2", "flux2-klein")
"""The families of the registry that edit a whole image, and do not begin with a noisy one."""
FROM_IMAGE_SCHEDULERS = ("euler", "heun")
"""The solvers that can begin at a noisy image: the others do not mix noise into one."""
GRIDS = ("model", "uniform", "karras", "beta", "logsnr")
"""Where a run's steps lie, as `grids` makes them."""
QUANTIZATIONS = ("nf4", "int8", "fp8")
"""How weights can be held in fewer bits."""
GGUF = ".gguf"
SFT = ".sft"
SAFETENSORS = (".safetensors", SFT)
SINGLE_FILES = (*SAFETENSORS, GGUF)
"""How a file of a transformer ends."""
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""How files end that may run code when they are read."""
OFFLOADS = ("none", "model", "group", "sequential")
"""What waits on the CPU for its turn, from nothing to every layer."""


@dataclass(frozen=True)
class BackboneEntry:
    """What is known about a backbone before it is loaded, and its defaults.

    Example:
        >>> REGISTRY["flux"].repo, REGISTRY["flux"].num_inference_steps
        ('black-forest-labs/FLUX.1-dev', 10)
    """

    name: str
    family: str
    """The family of its adapter."""
    repo: str | None
    """Its repository on the Hugging Face Hub; None for one on the disk."""
    num_inference_steps: int
    guidance_scale: float
    size: int | None
    """Height and width in pixels; None for what its own configuration says."""
    policy: str
    """What it is drawn with unless asked otherwise, as a policy is written: for `mini` a schedule
    that needs no tuning and beats the best constant (docs/mini.md), for `flux` and `sd35` the
    paper's mean deviation, trained on COCO with the bound 0.5 (Tables 1 and 2), and the synchronous
    sampler for those that nobody has measured."""
    licence: str
    licence_url: str | None = None
    gated: bool = False
    max_sequence_length: int | None = None
    """Tokens in the place of T5's; None for the pipeline's default. A pipeline without T5 pads
    its text with so many zeros, and is slow at the default of 256."""
    dtype: str = "fp16"
    """What it computes in on a GPU: as in the paper, or as published where fp16 overflows."""
    negative_prompt: str | None = None
    """What guides away where nothing else is given, for a model without guidance otherwise."""
    modules: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """Its shipped timestep prediction modules, by the policies that draw with them."""
    size_multiple: int | None = None
    """Height and width in pixels are multiples of this; None for what its configuration says."""
    largest_size: int | None = None
    """Height and width in pixels are at most this; None where that is not known, or has no end."""

    def guidance(self, asked: float | None) -> float:
        """The guidance scale that is asked for, or else its own."""
        return self.guidance_scale if asked is None else asked


REGISTRY: dict[str, BackboneEntry] = {
    entry.name: entry
    for entry in (
        BackboneEntry(
            name="mini",
            family="sd3",
            repo=None,
            num_inference_steps=10,
            guidance_scale=3.0,
            size=None,
            policy="spectral",
            licence="Apache-2.0 (drawn from MIT- and Apache-licensed art)",
            max_sequence_length=8,
            modules={name: ASSETS / f"mini_{name}" for name in ("learned", "lifted", "joint")},
            size_multiple=16,
            largest_size=128,
        ),
        BackboneEntry(
            name="sd35",
            family="sd3",
            repo="stabilityai/stable-diffusion-3.5-medium",
            num_inference_steps=15,
            guidance_scale=5.0,
            size=512,
            policy="fixed:0.192",
            licence="Stability AI Community License",
            licence_url="https://huggingface.co/stabilityai/stable-diffusion-3.5-medium",
            gated=True,
            size_multiple=16,
            largest_size=6144,
        ),
        BackboneEntry(
            name="flux",
            family="flux",
            repo="black-forest-labs/FLUX.1-dev",
            num_inference_steps=10,
            guidance_scale=5.0,
            size=512,
            policy="fixed:0.499",
            licence="FLUX.1 [dev] Non-Commercial License",
            licence_url="https://huggingface.co/black-forest-labs/FLUX.1-dev",
            gated=True,
            size_multiple=16,
        ),
        BackboneEntry(
            name="sd35-large",
            family="sd3",
            repo="stabilityai/stable-diffusion-3.5-large",
            num_inference_steps=28,
            guidance_scale=3.5,
            size=1024,
            policy=BASELINE,
            licence="Stability AI Community License",
            licence_url="https://huggingface.co/stabilityai/stable-diffusion-3.5-large",
            gated=True,
            size_multiple=16,
            largest_size=3072,
        ),
        BackboneEntry(
            name="flux-schnell",
            family="flux",
            repo="black-forest-labs/FLUX.1-schnell",
            num_inference_steps=4,
            guidance_scale=0.0,
            size=1024,
            policy=BASELINE,
            licence="Apache-2.0",
            licence_url="https://huggingface.co/black-forest-labs/FLUX.1-schnell",
            gated=True,
            max_sequence_length=256,
            size_multiple=16,
        ),
        BackboneEntry(
            name="flux2",
            family="flux2",
            repo="black-forest-labs/FLUX.2-dev",
            num_inference_steps=50,
            guidance_scale=4.0,
            size=1024,
            dtype="bf16",
            policy=BASELINE,
            licence="FLUX Non-Commercial License",
            licence_url="https://huggingface.co/black-forest-labs/FLUX.2-dev",
            gated=True,
            size_multiple=16,
        ),
        BackboneEntry(
            name="flux2-klein",
            family="flux2-klein",
            repo="black-forest-labs/FLUX.2-klein-4B",
            num_inference_steps=4,
            guidance_scale=1.0,
            size=1024,
            dtype="bf16",
            policy=BASELINE,
            licence="Apache-2.0",
            licence_url="https://huggingface.co/black-forest-labs/FLUX.2-klein-4B",
            size_multiple=16,
        ),
        BackboneEntry(
            name="qwen-image",
            family="qwen-image",
            repo="Qwen/Qwen-Image",
            num_inference_steps=50,
            guidance_scale=4.0,
            size=1328,
            dtype="bf16",
            policy=BASELINE,
            licence="Apache-2.0",
            licence_url="https://huggingface.co/Qwen/Qwen-Image",
            negative_prompt=" ",
            size_multiple=16,
        ),
        BackboneEntry(
            name="z-image",
            family="z-image",
            repo="Tongyi-MAI/Z-Image",
            num_inference_steps=50,
            guidance_scale=4.0,
            size=1024,
            dtype="bf16",
            policy=BASELINE,
            licence="Apache-2.0",
            licence_url="https://huggingface.co/Tongyi-MAI/Z-Image",
            size_multiple=16,
            largest_size=8192,
        ),
        BackboneEntry(
            name="z-image-turbo",
            family="z-image",
            repo="Tongyi-MAI/Z-Image-Turbo",
            num_inference_steps=8,
            guidance_scale=0.0,
            size=1024,
            dtype="bf16",
            policy=BASELINE,
            licence="Apache-2.0",
            licence_url="https://huggingface.co/Tongyi-MAI/Z-Image-Turbo",
            size_multiple=16,
            largest_size=8192,
        ),
    )
}


def evaluations(solver: str | None, steps: int) -> int:
    """Count the evaluations of K steps of a solver; None is the backbone's own, which makes K."""
    return 2 * steps - 1 if solver == "heun" else steps


def branches(entry: BackboneEntry, guidance: float | None) -> int:
    """Count the denoiser calls of an evaluation: two with classifier-free guidance, else one.

    Args:
        guidance: its scale; None for the backbone's own.
    """
    above = GUIDED_ABOVE.get(entry.family)
    return 1 if above is None or entry.guidance(guidance) <= above else 2


def anonymous_entry(name: str, family: str) -> BackboneEntry:
    """A pipeline without a name: the settings of the first backbone of its family, and its own
    size, licence and negative prompt.

    Raises:
        InputError: for a family without a backbone.
    """
    known = (e for e in REGISTRY.values() if e.family == family and e.repo is not None)
    model = next(known, None)
    if model is None:
        raise InputError(
            f"there are no defaults for the family {family!r}: put a BackboneEntry with its"
            " repository into asyncdiff_cli.engine.REGISTRY"
        )
    own: dict[str, Any] = {"repo": None, "licence": "its own", "licence_url": None}
    own |= dict.fromkeys(("size", "size_multiple", "largest_size", "negative_prompt"))
    return replace(model, name=name, gated=False, **own)


def provisional_entry(name: str) -> BackboneEntry:
    """What is known of a backbone before it is loaded; of one without a name that is little."""
    return REGISTRY.get(name) or anonymous_entry(name, "sd3")
