"""The prompts of T2I-CompBench (Huang et al., 2023), with their categories."""

from __future__ import annotations

from pathlib import Path

from asyncdiff_cli.engine.downloads import download
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.prompts.lines import read_prompts
from asyncdiff_cli.engine.prompts.prompt_set import PromptSet

T2I_URL = (
    "https://raw.githubusercontent.com/Karine-Huang/T2I-CompBench/"
    "1b7094991a57f3c22abdd4f6e8ba6c1a15517073/examples/dataset"
)
T2I_CATEGORIES = (
    "color",
    "shape",
    "texture",
    "spatial",
    "3d_spatial",
    "non_spatial",
    "numeracy",
    "complex",
)
T2I_SHA256 = {
    "color_train.txt": "db5d3287027d453f8c977f0c7315f8a01a770f02f61fa54ae19406762982393f",
    "shape_train.txt": "451bdfccd330d4cf979d45664817be7959e89250b93d5c591cc562b858175a87",
    "texture_train.txt": "4846315c5972f9e9cc82e4833099e8ec2c28b999ca77269512715f3f56bde54f",
    "spatial_train.txt": "af14cdf2320057d98f94077e6211c2ddfaabfbb9e3842873657baabb17e00de6",
    "3d_spatial_train.txt": "0bba7e9ad31b0ce7908f6cbf2426a4b7ef6e8b841c1b737d0ad2d5b8e688dd93",
    "non_spatial_train.txt": "dbac5a9ec83204dcd0c3538a12d3212e2ce66db6f7ba45b49a1d869b2d3f2430",
    "numeracy_train.txt": "f66bb8708cb0be23c0406e14d892b25661b2b71e3e72abddc79c38466ab629c6",
    "complex_train.txt": "d214ac45cb3c5307dd14a144c8c69aa5ffdcc7be74ff71b5dac989f8ca9f924b",
    "color_val.txt": "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
    "shape_val.txt": "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
    "texture_val.txt": "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
    "spatial_val.txt": "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
    "3d_spatial_val.txt": "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
    "non_spatial_val.txt": "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
    "numeracy_val.txt": "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
    "complex_val.txt": "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
}


def _t2i_files(split: str) -> list[str]:
    suffix = "train" if split == "train" else "val"
    return [f"{category}_{suffix}.txt" for category in T2I_CATEGORIES]


def fetch_compbench(directory: Path, split: str) -> None:
    for name in _t2i_files(split):
        download(f"{T2I_URL}/{name}", directory / name, T2I_SHA256[name])


def read_compbench(directory: Path, split: str) -> PromptSet:
    """The lines of the eight lists, category by category."""
    names = _t2i_files(split)
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise InputError(
            f"{directory} lacks {', '.join(missing)}: give the directory examples/dataset of"
            " T2I-CompBench"
        )
    texts: list[str] = []
    categories: list[str] = []
    for name, category in zip(names, T2I_CATEGORIES, strict=True):
        texts += [line.prompt for _, line in read_prompts(directory / name)]
        categories += [category] * (len(texts) - len(categories))
    return PromptSet("t2i-compbench", split, tuple(texts), tuple(categories))
