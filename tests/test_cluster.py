"""The cluster's scripts, under a Slurm of two machines that are this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.launching import free_port

CLUSTER = Path("recipes/cluster").resolve()
SCONTROL = "#!/bin/bash\necho 127.0.0.1\necho 127.0.0.1\n"
SRUN = """#!/bin/bash
SLURM_NODEID=0 "$@" & first=$!
SLURM_NODEID=1 "$@" & second=$!
wait $first; a=$?; wait $second; b=$?
exit $((a > b ? a : b))
"""


@pytest.fixture
def slurm(tmp_path):
    """Run a script as `sbatch` would, with one process per machine."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
        (binaries / name).write_text(text)
        (binaries / name).chmod(0o755)
    text = (CLUSTER / "two-nodes.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("num_processes: 16", "num_processes: 2"))

    def run(script, *arguments, **variables):
        return subprocess.run(
            ["bash", CLUSTER / script, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": str(Path.cwd()),
                "SLURM_JOB_NODELIST": "node[1-2]",
                "CONFIG": str(tmp_path / "config.yaml"),
                "PORT": str(free_port()),
                "OMP_NUM_THREADS": "1",
                **variables,
            },
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


ACCELERATE = """#!/bin/bash
printf '%s\\n' "$*" >> told
"""


@pytest.fixture
def accelerate(slurm, tmp_path):
    """Nothing is launched, but told."""
    fake = tmp_path / "bin" / "accelerate"
    fake.write_text(ACCELERATE)
    fake.chmod(0o755)


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("eval.sbatch", "eval --limit 4"),
        ("train.sbatch", "train --recipe flux-coco --out runs/flux-coco --limit 4"),
    ],
)
def test_each_machine_launches_the_command_with_its_own_rank(slurm, tmp_path, script, arguments):
    done = slurm(script, "--limit", 4, PORT="4321")
    assert done.returncode == 0, done.stderr
    assert sorted((tmp_path / "told").read_text().splitlines()) == [
        f"launch --config_file {tmp_path}/config.yaml --machine_rank {rank}"
        f" --main_process_ip 127.0.0.1 --main_process_port 4321 -m asyncdiff_cli {arguments}"
        for rank in (0, 1)
    ]


@pytest.mark.usefixtures("accelerate")
def test_a_training_goes_on_where_its_run_is(slurm, tmp_path):
    (tmp_path / "runs" / "mini").mkdir(parents=True)
    (tmp_path / "runs" / "mini" / "recipe.yaml").touch()
    assert slurm("train.sbatch", "iterations=2", RECIPE="mini").returncode == 0
    for line in (tmp_path / "told").read_text().splitlines():
        assert line.endswith("-m asyncdiff_cli train --resume runs/mini iterations=2")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would share the first GPU")
def test_two_machines_evaluate_into_one_store(slurm, tmp_path):
    done = slurm(
        "eval.sbatch", "--policies", "baseline,fixed:0.5", "--limit", 4, "--steps", 1, "--rewards",
        "sharpness", "--device", "cpu", "--out", "store", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drawn"] == 8
    assert len(Store(tmp_path / "store").parts()) == 2
    assert len(Store(tmp_path / "store").keys()) == 8


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would share the first GPU")
def test_two_machines_train_and_go_on(slurm, tmp_path):
    small = (
        *("num_inference_steps=2", "prompts_per_iteration=1", "group_size=2", "mini_batch_size=2"),
        *("evaluation.prompts=2", "samples.every=0", "checkpoint.every=1"),
    )
    for iterations, settings in ((1, small), (2, ())):
        done = slurm(
            "train.sbatch", "--device", "cpu", f"iterations={iterations}", *settings, RECIPE="mini"
        )
        assert done.returncode == 0, done.stderr
    rows = (tmp_path / "runs" / "mini" / "metrics.jsonl").read_text().splitlines()
    iterations = [r["iteration"] for r in map(json.loads, rows) if "rewards" in r]
    assert iterations == [1, 2]
    assert (tmp_path / "runs" / "mini" / "tpm" / "config.json").is_file()
