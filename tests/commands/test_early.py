"""What is refused, and what is shown, before anything heavy is imported."""

import json

from PIL import Image

from asyncdiff_cli.engine import TimestepPredictionModule
from asyncdiff_cli.engine.drawing.provenance import save_png
from tests.helpers.interpreter import python
from tests.helpers.reporting import make_store, provenance

RUN = """
import sys
from asyncdiff_cli.app import run
code, *lines = sys.argv[1:]
for line in lines:
    assert run(line.split()) == int(code), line
heavy = {"torch", "torchvision", "diffusers", "transformers", "accelerate", "peft", "open_clip"}
assert not heavy & sys.modules.keys()
assert code == "0" or "matplotlib" not in sys.modules
"""


def refused_early(lines):
    """What is said of each command line, in one process that imports nothing heavy."""
    done = python("-c", RUN, "2", *lines)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(lines)
    assert all(line.startswith("error: ") for line in said)
    return said


def test_what_names_and_the_disk_tell_is_refused_without_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "junk").write_text("{}")
    (tmp_path / "junk.safetensors").write_text("{}")
    (tmp_path / "junk.json").write_text("{}")
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt": 3}))
    (tmp_path / "prompt.txt").write_text("a cat")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "1.txt").write_text("a cat")
    (tmp_path / "recipe.yaml").write_text("bound: 2")
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    make_store(tmp_path / "store")
    TimestepPredictionModule(16, 256, 256, width=16, layers=1, heads=2).save_pretrained("tpm")
    before = sorted(tmp_path.rglob("*"))
    lines = {
        "sample x --solver eular": "euler",
        "sample x --model-path nowhere.gguf": "no file nowhere.gguf",
        "sample x --model-path nowhere": "no such directory",
        "sample x --backbone ./nowhere": "no directory ./nowhere",
        "sample x --backbone folder": "no model_index.json",
        "sample x --lora nowhere.safetensors": "no LoRA nowhere.safetensors",
        "sample x --lora folder": "holds none",
        "sample x --tpm ./nowhere": "--tpm: there is no directory ./nowhere",
        "sample x --tpm folder": "--tpm: folder holds no timestep prediction module",
        "sample x --policy learned:./nowhere": "no directory ./nowhere",
        "sample x --policy fixd:1": "fixed",
        "sample --prompt-file nowhere.txt": "no file nowhere.txt",
        "sample --from nowhere.png": "no file nowhere.png",
        "sample x --image nowhere.png": "no file nowhere.png",
        "sample x --image junk": "junk is not a readable image",
        "sample x --image folder": "folder is not a readable image",
        "sample x --image picture.png --strength 0": "greater than 0",
        "sample x --image picture.png --strength 1.5": "less than or equal to 1",
        "sample x --strength 0.5": "give --image FILE with it",
        "sample x --image picture.png --solver dpmpp": "give --solver euler or heun",
        "sample x --image picture.png --strength 0.5 --backbone flux2": "leave out --strength",
        "sample x --controlnet a/b": "give --control-image FILE with it",
        "sample x --control-image picture.png": "give --controlnet with them",
        "sample x --control-scale 0.5": "give --controlnet with them",
        "sample x --controlnet a/b --control-image junk": "junk is not a readable image",
        "sample x --controlnet a/b --control-image picture.png --control-scale 11": "equal to 10",
        "sample x --controlnet a --control-image picture.png": "neither a directory nor a repos",
        "sample x --controlnet folder --control-image picture.png": "it has no config.json",
        "sample x --controlnet a/b --control-image picture.png --backbone flux2": "no control net",
        "sample x --controlnet a/b --control-image picture.png --image picture.png": "leave out",
        "eval --policies baseline,lerned": "learned",
        "eval --policies learned:./nowhere": "no directory ./nowhere",
        "eval --rewards clipp": "clip",
        "eval --reward-path clip=nowhere.pt": "no file nowhere.pt",
        "eval --dataset nowhere.txt": "no such file",
        "eval --prompts nowhere": "nowhere",
        "eval --grid karas": "karras",
        "sweep --gammas 1 --policies lerned": "learned",
        "panel x --policies lerned": "learned",
        "panel --store nowhere": "nowhere",
        "score . --rewards clipp": "clip",
        "score nowhere": "nowhere",
        "score . --prompts nowhere.txt": "nowhere.txt",
        "histogram folder nowhere": "nowhere",
        "report nowhere": "nowhere",
        "explain --backbone ./nowhere": "no directory ./nowhere",
        "eval --reference nowhere": "nowhere",
        "merge folder nowhere --out new": "nowhere",
        "eval --dataset dpg": "dpg is not downloaded: give --prompts",
        "eval --dataset geneval --prompts prompt.txt": "prompt.txt:1: tag: Field required",
        "eval --num-images 0": "--num-images",
        "eval --dataset geneval --dry-run": "not known before it is downloaded: give --limit",
        "eval --out store --seed 7 --dry-run": "was evaluated with other settings, seed",
        "export nowhere --layout geneval --out new": "nowhere",
        "export store --layout genevl --out new": "did you mean 'geneval'",
        "export store --layout geneval --out junk": "give --out a directory",
        "export store --layout dpg --out new": "dpg is not downloaded",
        "export folder --layout dpg --prompts folder --out new": "folder holds no evaluation",
        "export store --layout dpg --prompts texts --out new": "other prompts than those of dpg",
        "import-scores store nowhere --layout dpg": "nowhere",
        "import-scores store folder --layout dpg --prompts texts": "other prompts",
        "import-scores store folder": "Missing option '--layout'",
        "train --dtype fp64": "fp64",
        "train --recipe nowhere.yaml": "no file nowhere.yaml",
        "train --resume nowhere": "nowhere",
        "train --resume folder": "no recipe.yaml",
        "train --prompts nowhere.txt": "nowhere.txt",
        "train prompts=nowhere.txt": "no such file",
        "train rewards.clip=1 reward_paths.clip=nowhere.pt": "no file nowhere.pt",
        "train model_path=nowhere": "no such directory",
        "sample x --device cdua": "use cpu, cuda or cuda:N",
        "sample x --device cpu --dtype fp16": "fp16 needs a GPU",
        "sample x --device cpu --offload model": "frees a GPU",
        "sample x --device cuda --offload group --compile": "--offload group moves",
        "sample x --attention flahs": "did you mean 'flash'",
        "sample x --revision main": "a revision belongs to a repository",
        "sample x --model-path junk.safetensors": "not a readable .safetensors file of",
        "sample x --size 100": "a multiple of 16",
        "sample x --size 512": "at most 128",
        "sample x --backbone flux --size 1000": "a multiple of 16",
        "sample x --num-images 1000000": "ask for fewer",
        "sample x --policy schedule:junk.json": "junk.json is damaged: deviations",
        "sample x --policy learned --backbone flux": "no learned module is shipped for flux",
        "sample x --policy lifted:flux": "no module is shipped for flux",
        "sample x --policy lifted:tpm": "has the bound 0.5",
        "sample x --dry-run --out junk": "junk is a file",
        "sample --prompt-file folder": "cannot read folder",
        "sample --prompt-file prompts.jsonl": "prompts.jsonl:1: prompt",
        "sample --from junk": "not a readable image",
        "eval --policies fixed:0.5": "add baseline",
        "eval --policies baseline,baseline": "twice",
        "eval --policies baseline,lifted --backbone flux": "no lifted module is shipped for flux",
        "eval --steps 0": "number of steps",
        "eval --size 512": "at most 128",
        "eval --limit 100000": "ask for at most so many",
        "eval --dataset prompt.txt --limit 2": "1 prompts",
        "eval --set-metrics spectrum --reference folder": "no pictures",
        "eval --shard 3/2": "a shard is I/N",
        "eval --processes 0": "number of processes",
        "eval --processes 0 --dry-run": "number of processes",
        "eval --device cdua": "use cpu, cuda or cuda:N",
        "eval --out folder/..": "no evaluation: give another --out",
        "eval --out store --seed 7": "was evaluated with other settings, seed (42, now 7)",
        "sweep": "nothing to sweep",
        "sweep --deviations 0.5,2": "outside [-1, 1]",
        "panel x --size 100": "a multiple of 16",
        "panel --store store --rows 99": "no image of prompt 99",
        "score folder": "there are no pictures",
        "score junk --dtype fp64": "fp64",
        "score junk --device cdua": "use cpu, cuda or cuda:N",
        "score junk --prompt x --prompts prompt.txt": "exclude each other",
        "score junk --batch-size 0": "--batch-size",
        "histogram folder": "neither an evaluation nor a run",
        "histogram store --out new.jpg": ".png, .svg or .pdf",
        "histogram store --policy nope": "no deviations of nope",
        "report folder": "neither an evaluation nor a training run",
        "explain --policy learned": "chooses by the picture",
        "explain --policy schedule:junk.json": "junk.json is damaged",
        "explain --spectrum junk.json": "junk.json is damaged",
        "explain --steps 0": "number of steps",
        "explain --shift 0": "above 0",
        "explain --backbone mini --size 100": "a multiple of 16",
        "explain --out new.jpg": ".png, .svg or .pdf",
        "train --tracker wnb": "did you mean 'wandb'",
        "train --recipe recipe.yaml": "recipe.yaml: ",
        "train size=100": "a multiple of 16",
        "train nope=1": "unknown key 'nope'",
        "train --processes 0": "number of processes",
        "calibrate --out new.json --size 100": "a multiple of 16",
        "calibrate --out new.json --device cdua": "use cpu, cuda or cuda:N",
        "calibrate --out new.json --solver heun": "evaluates twice a step",
        "calibrate --out new.txt": "ends in .json",
        "spectrum --out new.json --size 100": "a multiple of 16",
        "distill folder --out new.json": "no timestep prediction module",
        "distill flux --out new.json": "no module is shipped for flux",
        "distill tpm --backbone mini --out new.json --size 512": "at most 128",
        "merge store store --out folder/..": "is there already",
        "push junk.json alice": "write USER/NAME",
        "push junk.json alice/s": "neither a schedule nor a spectrum",
        "push folder alice/s": "neither a module nor a run",
        "inspect junk": "not a readable image",
        "recipes validate recipe.yaml": "recipe.yaml: ",
        "backbones nope": "unknown backbone",
    }
    for line, part in zip(refused_early(lines), lines.values(), strict=True):
        assert part in line, (line, part)
    assert sorted(tmp_path.rglob("*")) == before


def test_where_nothing_can_be_written_is_refused_without_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    directories = "sample x", "eval", "sweep --gammas 1", "train", "merge folder"
    charts = "panel x", "histogram folder", "report folder", "explain"
    files = "score . --csv", *(f"{chart} --out" for chart in charts)
    refused_early([f"{line} --out {out}" for line in directories for out in ("file", "file/new")])
    refused_early([f"{line} {out}" for line in files for out in ("folder", "file/new.png")])
    assert (tmp_path / "file").read_text() == "mine"
    assert not any((tmp_path / "folder").iterdir())
    assert len([*tmp_path.iterdir()]) == 2


def test_a_dry_run_of_a_known_backbone_needs_no_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    record = provenance("a dog", policy={"name": "fixed", "deviation": 0.5})
    save_png(Image.new("RGB", (128, 128)), "dog.png", record)
    TimestepPredictionModule(16, 256, 256, width=16, layers=1, heads=2).save_pretrained("tpm")
    lines = {
        "sample cat": "mini, float32 on cpu",
        "sample cat --stepwise --dtype bf16": "mini, bfloat16 on cpu",
        "sample cat dog --deviation 0.3 --compare 0,1": "line fixed:0.3, gamma 0.0",
        "sample cat --schedule 0,0.5 --negative dog": "line schedule:0/0.5",
        "sample cat --policy spectral@2": "line spectral, gamma 2.0",
        "sample cat --tpm tpm": "line learned:tpm",
        "sample cat --backbone flux --steps 7": "line fixed:0.499, gamma 1.0, num_infer",
        "sample cat --backbone z-image": "name synchronous, gamma 1.0, num_inference_steps 50",
        "sample --from dog.png --gamma 2 --out new": "new/dog-gamma2.png",
        "eval --limit 3": "denoiser calls  300\n",  # of five policies in ten guided steps
        "train iterations=3 group_size=4": "held out prompts  ",
        "eval --backbone flux --policies baseline,fixed:1 --steps 7,10": "denoiser calls  69632\n",
    }
    done = python("-c", RUN, "0", *(f"{line} --device cpu --dry-run" for line in lines))
    assert (done.returncode, done.stderr) == (0, "")
    for text in lines.values():
        assert text in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dog.png", "tpm"]


def test_what_is_shown_of_a_store_needs_no_torch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "store")
    lines = "report store", "histogram store", "panel --store store", "merge store --out new"
    done = python("-c", RUN, "0", *lines)
    assert (done.returncode, done.stderr) == (0, "")
