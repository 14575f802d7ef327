"""What is too large is refused at once, in a line that says how large it may be."""

import os

import pytest
from diffusers import DiffusionPipeline

HUGE = 10**9
BOMB = (
    "prompts: [&a0 [1], "
    + ", ".join(f"&a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 13))
    + "]"
)
"""YAML of 9¹² numbers."""
COMMANDS = {
    "sample": ("sample", "a cat"),
    "eval": ("eval", "--rewards", "sharpness"),
    "sweep": ("sweep", "--deviations", "0.5", "--rewards", "sharpness"),
    "panel": ("panel", "a cat", "--policies", "baseline,fixed:0.5"),
    "train": ("train",),
}


@pytest.fixture
def refused(asyncdiff, monkeypatch, tmp_path):
    """The line of a command that is refused before it loads weights or leaves anything behind."""

    def load(*_, **__):
        pytest.fail("weights were loaded")

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", load)

    def call(*arguments):
        before = sorted(tmp_path.rglob("*"))
        outcome = asyncdiff(*arguments)
        assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
        assert sorted(tmp_path.rglob("*")) == before
        return outcome.err

    return call


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("size", "line"),
    [(15, "needs a multiple of 16, for example 16"), (1024, "this backbone draws at most 128")],
)
def test_sizes(refused, command, size, line):
    given = (f"size={size}",) if command == "train" else ("--size", size)
    assert f"the height is {size}" in (found := refused(*COMMANDS[command], *given))
    assert line in found


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("sample", "a cat", "--steps", HUGE), "1000"),
        (("sample", "a cat", "-n", HUGE), "100"),
        (("sample", "a cat", "--batch-size", HUGE), "1000000"),
        (("sample", "a cat", "--size", HUGE), "16,384"),
        (("sample", "a cat", "--guidance", "1e30"), "1000"),
        (("sample", "a cat", "--device", "cpu:7"), "unknown device 'cpu:7'; use cpu, cuda or"),
        (("sample", "a cat", "--size", "9" * 5000), "16,384"),
        (("sample", "a cat", "--size", "16x" * 5000), "one number of pixels, or WIDTHxHEIGHT"),
        (("eval", "--size", "16x32"), "--size is one number of pixels here, of a square"),
        (("panel", "a cat", "--size", "large"), "--size: a size is one number of pixels, or"),
        (("sweep", "--deviations", "1", "--size", HUGE), "16,384"),
        (("eval", "--images", HUGE), "--images is a whole number from 0 to 1,000,000"),
        (("eval", "--shard", f"0/{10**8}"), "N to 1,000,000"),
        (("eval", "--shard", "9" * 5000), "a shard is I/N, such as 0/4"),
        (("score", ".", "--batch-size", HUGE), "--batch-size is a whole number from 1 to"),
        (("eval", "--steps", HUGE), "from 1 to 1000"),
        (("eval", "--limit", HUGE), "--limit is a whole number from 1 to 1,000,000"),
        (("eval", "--batch-size", HUGE), "--batch-size is a whole number from 1 to 1,000,000"),
        (("eval", "--device", "cpu:7"), "unknown device 'cpu:7'; use cpu, cuda or"),
        (("panel", "a cat", "--batch-size", HUGE), "from 1 to 1,000,000"),
        (("sweep", "--deviations", "1", "--limit", HUGE), "from 1 to 1,000,000"),
        (("train", f"iterations={HUGE}"), "1000000"),
        (("train", f"num_inference_steps={HUGE}"), "1000"),
        (("train", "tpm.width=100000000"), "8192"),
        (("train", "tpm.layers=100000000"), "128"),
        (("train", "learning_rate=1e30"), "learning_rate"),
        (("train", f"rollout_batch_size={HUGE}"), "1000000"),
        (("train", f"evaluation.prompts={HUGE}"), "1000000"),
        (("train", "--device", "cpu:7"), "unknown device 'cpu:7'; use cpu, cuda or"),
        (("train", "--recipe", "/dev/zero"), "/dev/zero: it is not a regular file"),
        (("recipes", "validate", "/dev/zero"), "/dev/zero: it is not a regular file"),
        (("train", "--recipe", "pipe.yaml"), "pipe.yaml: it is not a regular file"),
        (("recipes", "validate", "pipe.yaml"), "pipe.yaml: it is not a regular file"),
        (("train", "--recipe", "bomb.yaml"), "prompts: Input should be"),
        (("recipes", "validate", "bomb.yaml"), "prompts: Input should be"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_numbers_and_files(refused, tmp_path, arguments, line):
    (tmp_path / "bomb.yaml").write_text(BOMB)
    os.mkfifo(tmp_path / "pipe.yaml")
    found = refused(*arguments)
    assert line in found.replace("\\", "")
    assert len(found) < 600
