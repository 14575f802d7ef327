"""The cards of a module, a schedule and a spectrum: what they say, and what they keep back."""

import ast
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from asyncdiff_cli.engine import InputError, Schedule, make_scheduler
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.publishing.card import base_model, without_folders
from asyncdiff_cli.engine.publishing.folder import card_of
from asyncdiff_cli.engine.publishing.material import TrainedModule, find_material
from tests.conftest import quiet
from tests.helpers.modules import save_module, tiny
from tests.helpers.reporting import RECIPE, compared, make_run, make_store

SPECTRUM = MeasuredSpectrum(
    frequency=(0.0, 1.0, 2.0),
    std=(2.0, 1.0, 0.5),
    share=(0.25, 0.25, 0.5),
    backbone="black-forest-labs/FLUX.1-dev",
)


def tried(policy, mean, difference):
    rewards = {"clip": compared(2.0, 0.25)}
    return {"policy": policy, **compared(mean, difference), "spectrum": 0.1, "rewards": rewards}


def schedule(**known):
    values = {
        "deviations": (0.5, 0.25),
        "steps": 3,
        "guidance_scale": 5.0,
        "backbone": "stabilityai/stable-diffusion-3.5-medium",
        "sigmas": (1.0, 0.8, 0.4, 0.0),
        "cond_sigmas": (1.0, 0.7, 0.3),
        "made": {"by": "calibration", "command": "asyncdiff calibrate", "dataset": "coco2014"},
        "held_out": {"policies": [tried("baseline", 1.0, 0.0), tried("calibrated", 0.75, -0.25)]},
    }
    return Schedule(**{**values, **known})


@pytest.fixture
def run(tmp_path):
    """A run of files made by hand, with a module and no evaluation of it."""
    path = tmp_path / "run"
    path.mkdir()
    save_module(make_run(path) / "tpm")
    return path


def read(material, name="alice/thing", licence="mit"):
    """The card's text, its metadata as the hub's library reads it, and the code in it."""
    text = card_of(material).text(name, licence)
    (code,) = re.findall(r"```python\n(.*?)\n```", text, re.S)
    ast.parse(code)
    return text, ModelCard(text).data, code


def metrics(data):
    return {found.metric_type: found for found in data.eval_results}


def test_a_module_says_what_it_was_worth_while_it_was_trained(run):
    text, data, code = read(find_material(run))
    assert (data.library_name, data.license, data.model_name) == ("asyncdiff", "mit", "thing")
    found = metrics(data)["clip"]
    assert (found.metric_value, found.dataset_name, found.dataset_split) == (
        2.5,
        "mini",
        "validation",
    )
    assert found.metric_args == {"baseline": 2.0, "difference": 0.5, "low": 0.0, "high": 1.0}
    assert found.dataset_args == {"prompts": 3, "num_inference_steps": 3, "guidance_scale": 3.0}
    assert "| 1, best | " in text
    assert RECIPE.strip() in text
    assert "![" in text
    assert "(training.png)" in text
    assert 'LearnedDeviation.load("alice/thing")' in code
    line = 'asyncdiff sample "a cat" --backbone mini --steps 3 --guidance 3 --tpm alice/thing'
    assert line in text
    (lacking,) = card_of(find_material(run)).lacking
    assert lacking.endswith(f"no histogram of D: `asyncdiff histogram {run}` makes it")


def test_an_evaluation_of_the_run_is_what_a_module_is_worth(run):
    make_store(run / "evaluation")
    text, data, _ = read(find_material(run / "tpm"))  # the module of the run, and so the run's
    assert [found.metric_type for found in data.eval_results] == ["clip", "noise"]  # no rivals'
    assert metrics(data)["clip"].metric_args["difference"] == 0.5
    assert "(histogram.png)" in text
    assert "| fixed:0.5 | 1 | +0.062 |" in text
    assert card_of(find_material(run)).lacking == ()


def test_a_module_alone_has_no_results(tmp_path):
    material = find_material(save_module(tmp_path / "tpm", bound=1.0))
    assert material == TrainedModule(tmp_path / "tpm")
    text, data, _ = read(material, licence=None)
    assert (data.eval_results, data.license, data.base_model) == (None, None, None)
    assert "| bound | 1 |" in text
    assert "how far the time that it is told runs ahead of the sampler's, as rewards" in text
    assert "--backbone" not in text


def test_a_module_says_what_it_decides(tmp_path):
    tiny(actions=("deviation", "scale")).save_pretrained(tmp_path)
    text, *_ = read(find_material(tmp_path))
    assert "the sampler's and what its velocity is multiplied by, as rewards" in text


def test_a_schedule_says_what_it_is_worth(tmp_path):
    text, data, code = read(schedule())
    assert data.base_model == "stabilityai/stable-diffusion-3.5-medium"
    assert metrics(data)["distance"].metric_value == 0.75
    assert metrics(data)["clip"].metric_args["baseline"] == 1.75
    assert "| calibrated | 0.75 -0.25 [-0.75, +0.25] | 2 +0.25 [-0.25, +0.75] |" in text
    line = "--backbone sd35 --steps 3 --guidance 5 --policy calibrated:alice/thing"
    assert line in text
    assert "deviations=[0.5, 0.25]" in code
    assert "num_inference_steps=3, guidance_scale=5)" in code


def test_another_solver_is_not_for_the_scheduler_of_diffusers():
    text, _, code = read(schedule(solver="dpmpp", made={}, held_out={}))
    assert "Schedule.load(hf_hub_download(" in code
    assert "--scheduler dpmpp --policy schedule:alice/thing" in text
    assert "## Held out" not in text


def test_a_spectrum_says_whose_it_is():
    text, data, _ = read(SPECTRUM)
    assert data.base_model == "black-forest-labs/FLUX.1-dev"
    assert "--backbone flux --policy spectral:alice/thing" in text
    assert "(spectrum.png)" in text


def test_no_folder_of_this_machine_is_told(run):
    recipe = RECIPE.replace("prompts: mini", "prompts: /home/alice/secret/p.txt")
    (run / "recipe.yaml").write_text(recipe)
    text, data, _ = read(find_material(run))
    assert "secret" not in text
    assert "prompts: …/p.txt" in text
    assert metrics(data)["clip"].dataset_name == "…/p.txt"
    text, data, _ = read(schedule(backbone="/home/alice/secret/flux"))
    assert "secret" not in text
    assert data.base_model is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/alice/a.txt", "…/a.txt"),
        ("~/runs/mini", "…/mini"),
        ("--prompts=/data/p.txt", "--prompts=…/p.txt"),
        ("schedule:/data/s.json", "schedule:…/s.json"),
        ('{"file": "/data/s.json"}', '{"file": "…/s.json"}'),
        ("https://arxiv.org/abs/1", "https://arxiv.org/abs/1"),
        ("alice/tpm and runs/mini/tpm", "alice/tpm and runs/mini/tpm"),
        ("0.5/0.25/0", "0.5/0.25/0"),
    ],
)
def test_what_is_kept_of_a_path(text, shown):
    assert without_folders(text) == shown


@pytest.mark.parametrize(
    ("backbone", "repository"),
    [
        ("flux", "black-forest-labs/FLUX.1-dev"),
        ("alice/flux", "alice/flux"),
        ("mini", None),
        ("/models/flux", None),
        ("…/flux", None),
        (None, None),
    ],
)
def test_the_model_that_it_is_for(backbone, repository):
    assert base_model(backbone) == repository


def test_lines_of_others_stay_in_their_row(tmp_path):
    schedule(made={"by": "me\n---\n\x1b[31m"}).save(tmp_path / "s.json")
    text, _, _ = read(find_material(tmp_path / "s.json"))
    assert r"| made by | me --- \\x1b[31m |" in text


def test_markdown_and_yaml_of_others_are_shown_as_they_are(run):
    (run / "recipe.yaml").write_text(RECIPE.replace("prompts: mini", 'prompts: "a|<b>: c.txt"'))
    text, data, _ = read(find_material(run))
    assert r"| prompts | a\|\<b>: c.txt |" in text
    assert metrics(data)["clip"].dataset_name == "a|<b>: c.txt"
    assert yaml.safe_load(text.split("---\n")[1])["tags"][0] == "asyncdiff"


def test_a_damaged_table_is_one_line():
    with pytest.raises(InputError, match=r"held_out is damaged: policies\.0\.difference: Field"):
        card_of(schedule(held_out={"policies": [{"policy": "baseline", "mean": 1.0}]}))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{}", "is neither a schedule nor a spectrum: give a file that `asyncdiff calibrate`"),
        ("{", "is damaged: Invalid JSON"),
        ('{"deviations": [2.0]}', "is damaged: deviations.0"),
    ],
)
def test_what_is_no_material_is_one_line(tmp_path, content, line):
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(InputError) as caught:
        find_material(tmp_path / "f.json")
    assert line in str(caught.value)


def test_a_directory_without_a_module_is_one_line(run):
    (run / "tpm" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"neither a module nor a run with one in tpm/: it has no"):
        find_material(run)


def material_of(name, solver, directory):
    if name == "spectrum":
        return SPECTRUM
    return schedule(solver=solver) if name == "s" else find_material(save_module(directory))


@pytest.mark.parametrize(
    ("name", "solver"), [("tpm", "euler"), ("s", "euler"), ("s", "dpmpp"), ("spectrum", "euler")]
)
def test_the_code_of_a_card_draws(hub, sd3, tmp_path, name, solver):
    """In a pipeline of diffusers, from what the hub has."""
    material = material_of(name, solver, tmp_path / "tpm")
    hub.put(
        f"alice/{name}",
        {path.name: path.read_bytes() for path in (tmp_path / "tpm").iterdir()}
        if name == "tpm"
        else {material.file: material.model_dump_json().encode()},
    )
    sd3.scheduler = make_scheduler(solver, "sd3", sd3.scheduler.config)
    names = {"pipe": quiet(sd3)}
    exec(read(material, f"alice/{name}")[2], names)
    assert names["image"].size == (16, 16)
