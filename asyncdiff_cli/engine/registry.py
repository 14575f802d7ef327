"""What is known by name before anything is loaded: backbones, their defaults, and solvers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

MINI_DIRECTORY = Path(str(files("asyncdiff_cli"))) / "assets" / "mini"
MINI_DEVIATION = 0.5
"""The ceiling of the unlifted bound, to compare with; by default mini uses its module."""

SCHEDULER_CLASSES = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
    "dpm-solver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""The solvers that integrate a flow-matching velocity, as diffusers names them."""


@dataclass(frozen=True)
class BackboneEntry:
    """What is known about a backbone before it is loaded, and its defaults."""

    name: str
    family: str
    """"sd3" or "flux"."""
    repo: str | None
    """Its repository on the Hugging Face Hub; None for one on the disk."""
    num_inference_steps: int
    guidance_scale: float
    size: int | None
    """Height and width in pixels; None for what its own configuration says."""
    deviation: float
    """The default policy's where there is no module: for `flux` and `sd35` the paper's mean,
    trained on COCO with the bound 0.5 (Tables 1 and 2)."""
    licence: str
    licence_url: str | None = None
    gated: bool = False
    max_sequence_length: int | None = None
    """Tokens in the place of T5's; None for the pipeline's default. A pipeline without T5 pads
    its text with so many zeros, and is slow at the default of 256."""
    tpm: Path | None = None
    """Its shipped timestep prediction module; None for a backbone without one."""
    lifted: Path | None = None
    """Its shipped module with the bound 1."""


REGISTRY: dict[str, BackboneEntry] = {
    entry.name: entry
    for entry in (
        BackboneEntry(
            name="mini",
            family="sd3",
            repo=None,
            num_inference_steps=5,
            guidance_scale=5.0,
            size=None,
            deviation=MINI_DEVIATION,
            licence="Apache-2.0 (drawn from MIT-licensed art)",
            max_sequence_length=8,
            tpm=MINI_DIRECTORY / "tpm",
            lifted=MINI_DIRECTORY / "tpm-lifted",
        ),
        BackboneEntry(
            name="sd35",
            family="sd3",
            repo="stabilityai/stable-diffusion-3.5-medium",
            num_inference_steps=15,
            guidance_scale=5.0,
            size=512,
            deviation=0.192,
            licence="Stability AI Community License",
            licence_url="https://huggingface.co/stabilityai/stable-diffusion-3.5-medium",
            gated=True,
        ),
        BackboneEntry(
            name="flux",
            family="flux",
            repo="black-forest-labs/FLUX.1-dev",
            num_inference_steps=10,
            guidance_scale=5.0,
            size=512,
            deviation=0.499,
            licence="FLUX.1 [dev] Non-Commercial License",
            licence_url="https://huggingface.co/black-forest-labs/FLUX.1-dev",
            gated=True,
        ),
    )
}
