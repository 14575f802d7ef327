"""Recipes: the shipped ones, every problem at once, overrides, `extends`, and what they cost."""

import math
import re
import subprocess
import sys

import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asyncdiff_cli.engine import yaml12
from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.training import recipe_files
from asyncdiff_cli.engine.training.recipe import Cost, Recipe, cost
from asyncdiff_cli.engine.training.recipe_files import (
    copy_recipe,
    header,
    load_recipe,
    names,
    parse_recipe,
    path_of,
    to_yaml,
)
from benchmarks.gpu.architecture import ARCHITECTURES

LEAST = {"num_inference_steps": 6, "rewards": {"mini_clip": 1}}
"""What has no default."""
CELLS = {
    f"{backbone}-{data}{suffix}": (backbone, prompts, bound)
    for backbone in ("flux", "sd35")
    for data, prompts in (("coco", "coco2014"), ("compbench", "t2i-compbench"))
    for suffix, bound in (("", 0.5), ("-lifted", 1.0))
}
"""The trained rows of Tables 1 and 2."""
FAST = ("flux-fast", "sd35-fast")


def refused(*overrides, name="flux-coco"):
    with pytest.raises(InputError) as caught:
        load_recipe(str(name), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_there_is_a_recipe_for_every_cell_of_the_paper_and_for_mini():
    assert names() == sorted([*CELLS, *FAST, "mini", "mini-joint", "mini-lifted"])


@pytest.mark.parametrize("name", CELLS)
def test_the_cells_have_the_settings_of_the_paper(name):
    recipe = load_recipe(name)
    assert (recipe.backbone, recipe.prompts, recipe.bound) == CELLS[name]
    flux = recipe.backbone == "flux"
    assert recipe.num_inference_steps == (10 if flux else 15)
    assert recipe.learning_rate == (2e-5 if flux else 1e-5)
    assert (recipe.guidance_scale, recipe.size, recipe.dtype) == (5, 512, "fp16")
    assert (recipe.iterations, recipe.prompts_per_iteration, recipe.epochs) == (4000, 1, 1)
    assert (recipe.group_size, recipe.mini_batch_size, recipe.noises_per_prompt) == (16, 4, None)
    assert (recipe.clip_range, recipe.max_grad_norm, recipe.seed) == (0.2, 1.0, 42)
    assert recipe.rewards == {"image_reward": 1, "hpsv2": 1, "clip": 1, "pickscore": 1}
    assert (recipe.kl_weight, recipe.entropy_weight, recipe.ema_decay) == (0, 0, None)
    assert recipe.evaluation.patience is None  # the paper's runs go on to the end


@pytest.mark.parametrize("name", names())
def test_the_header_tells_the_command_and_the_cost(name):
    comment = header(name)
    assert f"asyncdiff train --recipe {name}\n" in comment
    found = re.search(r"([\d,]+) images in ([\d,]+) denoiser forward passes", comment)
    assert found
    amounts = Cost(*(int(number.replace(",", "")) for number in found.groups()))
    assert amounts == cost(load_recipe(name))
    if name in (*CELLS, *FAST):
        assert f"asyncdiff train --recipe {name} --processes 8\n" in comment
        flux = name.startswith("flux")
        flops = 2.15e13 if flux else 2.44e12
        hours = amounts.forward_passes * flops / 400e12 / 3600
        assert f"about {hours:.0f} GPU hours" in " ".join(comment.split())
        assert "measured" in comment


@pytest.mark.parametrize(("name", "flops"), [("flux", "2.15e13"), ("sd35", "2.44e12")])
def test_the_flops_of_a_pass_are_those_of_the_full_size_transformer(name, flops):
    config = ARCHITECTURES[name].transformer
    with torch.device("meta"):
        if name == "flux":
            transformer, text, pooled = FluxTransformer2DModel(**config), 512, 768
            places = {"img_ids": torch.empty(1024, 3), "txt_ids": torch.empty(text, 3)}
            own = {"hidden_states": torch.empty(1, 1024, 64), "guidance": torch.empty(1), **places}
        else:
            transformer, text, pooled = SD3Transformer2DModel(**config), 333, 2048
            own = {"hidden_states": torch.empty(1, 16, 64, 64)}
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            transformer(
                encoder_hidden_states=torch.empty(1, text, 4096),
                pooled_projections=torch.empty(1, pooled),
                timestep=torch.empty(1),
                **own,
            )
    assert f"{counter.get_total_flops():.2e}".replace("e+", "e") == flops
    assert f"a pass is {flops} FLOPs" in " ".join(header(f"{name}-coco").split())


@pytest.mark.parametrize("name", FAST)
def test_fast_recipes_are_the_paper_s_in_groups_and_from_a_start_like_mini_s(name):
    paper, mini = load_recipe(name.replace("fast", "coco")), load_recipe("mini")
    groups = {
        key: getattr(mini, key)
        for key in ("group_size", "noises_per_prompt", "scale_rewards", "start")
    }
    own = {"iterations": 1000, "prompts_per_iteration": 8, "mini_batch_size": 8}
    assert load_recipe(name) == paper.model_copy(update=groups | own)


def test_lifted_recipes_differ_in_the_bound_and_that_of_mini_in_its_start():
    for name in names():
        if name.endswith("-lifted"):
            other = load_recipe(name.removesuffix("-lifted"))
            start = "spectral" if name == "mini-lifted" else other.start
            assert load_recipe(name) == other.model_copy(update={"bound": 1.0, "start": start})


def test_a_recipe_is_frozen_and_needs_only_steps_and_rewards():
    recipe = Recipe(**LEAST)
    assert recipe.tpm.width == 256
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1
    with pytest.raises(InputError, match=r"num_inference_steps: .*required; rewards: .*required"):
        parse_recipe({})


@pytest.mark.parametrize(
    ("override", "numbers"),
    [
        ("mini_batch_size=5", r"2 · group_size 16 = 32 is not divisible by mini_batch_size 5"),
        ("mini_batch_size=64", r"32 is not divisible by mini_batch_size 64 \(try 32\)"),
        ("noises_per_prompt=3", r"group_size 16 is not divisible by noises_per_prompt 3"),
        ("group_size=1", r"a group of 1 has no advantage"),
        ("start=time-shift", r"start: 'time-shift' is none of fixed, schedule, spectral, calib"),
        ("start=fixed:0.5@2", r"start: .*without a gamma"),
        ("start=fixed:2", r"start: .*fixed: .*2"),
        ("estimator.baseline=groups", r"estimator\.baseline: .*did you mean 'group'"),
        ("estimator.baseline=james_stein", r"estimator: james_stein .* scale_rewards baseline"),
        ("actions=[grid]", r"actions: .*grid goes with deviation"),
        ("actions=[speed]", r"actions: .*actions are deviation, scale, grid"),
        ("estimator.stepwise=1.5", r"estimator\.stepwise: .*1, not 1\.5"),
        ("estimator.branches=2", r"estimator: branches share a noise, of which there are 1 images"),
        ("estimator={branches: 2, antithetic: true}", r"estimator: branches go with no antithetic"),
        ("step_range=[8, 4]", r"step_range: .*not 8 and 4"),
        ("step_range=[1, 8]", r"step_range: .*not 1 and 8"),
        ("step_range=[4]", r"step_range\.1: .*required"),
        ("step_range=[20, 30]", r"num_inference_steps \d+ is outside the range 20 to 30"),
        ("num_inference_steps=1", r"num_inference_steps: .*2, not 1"),
        ("tpm.heads=3", r"tpm\.heads: .*3 is not even"),
        ("tpm.heads=6", r"tpm\.heads: width 256 is not divisible by heads 6"),
        ("tpm.width=0", r"tpm\.width: .*1, not 0"),
        ("bound=0.7", r"bound: .*0\.7"),
        ("dtype=fp17", r"dtype: .*did you mean 'fp16'"),
        ("scheduler=eular", r"scheduler: .*did you mean 'euler'"),
        ("rewards.hpsv3=1", r"rewards\.hpsv3: .*did you mean 'hpsv2'"),
        ("rewards.clip=-1", r"rewards\.clip: .*0, not -1"),
        ("rewards.clip=.inf", r"rewards\.clip: .*finite"),
        ("rewards={}", r"no reward has a weight above 0"),
        ("rewards={clip: 0}", r"no reward has a weight above 0"),
        ("rewards=[clip]", r"rewards: .*dictionary"),
        (
            "reward_paths.hpsv2.1=a.pt",
            r"hpsv2\.1 is not among the rewards image_reward, hpsv2, clip",
        ),
        ("reward_paths.noise=a.pt", r"noise is a part of this package"),
        ("learning_rate=0", r"learning_rate: .*0, not 0"),
        ("learning_rate=.nan", r"learning_rate: .*finite"),
        ("ema_decay=1", r"ema_decay: .*1, not 1"),
        ("iterations=many", r"iterations: .*not 'many'"),
        ("iterations.x=3", r"iterations: .*integer"),
        ("iterations=true", r"iterations: .*true"),
        ("rewards.clip=true", r"rewards\.clip: .*true"),
        ("tpm=5", r"tpm: .*not 5"),
        ("evaluation.patience=0", r"evaluation\.patience: .*1, not 0"),
        ("iteratons=3", r"unknown key 'iteratons'; did you mean 'iterations'"),
        ("tpm.widht=3", r"tpm: unknown key 'widht'; did you mean 'width'"),
        ("tpm.width", r"KEY=VALUE.*not 'tpm\.width'"),
        ("=3", r"KEY=VALUE.*not '=3'"),
        ("tpm.=3", r"KEY=VALUE.*not 'tpm\.=3'"),
        ("rewards={clip", r"value of 'rewards=\{clip' is not YAML"),
        ("seed=2025-99-99", r"seed: .*2025-99-99"),
        ("guidance_scale=", r"guidance_scale= gives no value: write null for the default"),
        ("rewards.noise= ", r"rewards\.noise= gives no value"),
        ("prompts=' '", r"prompts: it is empty"),
        ("lora=['']", r"lora: it is empty"),
    ],
)
def test_what_cannot_be_is_refused_with_its_numbers(override, numbers):
    assert re.search(numbers, refused("prompts_per_iteration=2", override))


def test_all_problems_are_reported_at_once():
    message = refused(
        *("iteratons=3", "tpm.widht=3", "seed=x", "mini_batch_size=5", "tpm.heads=6", "nonsense"),
        *("noises_per_prompt=3", "rewards.hpsv3=1", "dtype=fp17"),
    )
    assert message.startswith("flux-coco: ")
    expected = ("iteratons", "widht", "seed: ", "size 5", "heads 6", "'nonsense'", "prompt 3")
    for part in (*expected, "hpsv3", "fp17"):
        assert part in message


def test_a_combination_with_a_faulty_field_is_not_judged():
    message = refused("group_size=x", "mini_batch_size=5", "noises_per_prompt=3")
    assert "group_size: " in message
    assert "divisible" not in message


@given(prompts=st.integers(1, 8), size=st.integers(2, 32), batch=st.integers(1, 64))
def test_mini_batches_divide_the_trajectories(prompts, size, batch):
    values = LEAST | {
        "prompts_per_iteration": prompts,
        "group_size": size,
        "mini_batch_size": batch,
    }
    if prompts * size % batch == 0:
        parse_recipe(values)
        return
    with pytest.raises(InputError) as caught:
        parse_recipe(values)
    near = int(re.search(r"try (\d+)", str(caught.value)).group(1))
    parse_recipe(values | {"mini_batch_size": near})


@pytest.mark.parametrize(
    ("actions", "start", "lacking"),
    [
        ("scale", "spectral", "deviation"),
        ("deviation", "velocity-scale:0.9", "scale"),
        ("deviation", "combined:0.25/0.9", "scale"),
        ("scale", "scaled-schedule:0/0.9", "deviation"),
    ],
)
def test_a_start_is_of_a_module_that_decides_as_much(actions, start, lacking):
    with pytest.raises(InputError, match=rf"start: '{start}' decides the {lacking}, which act"):
        load_recipe("mini", [f"actions=[{actions}]", f"start={start}"])


def test_a_module_that_decides_both_starts_at_either():
    for start in ("spectral", "velocity-scale:0.9", "combined:0.25/0.9"):
        recipe = load_recipe("mini", ["actions=[deviation, scale]", f"start={start}"])
        assert recipe.start == start
    assert load_recipe("mini", ["actions=[scale, deviation]"]).actions == ("deviation", "scale")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("kl_weight=0.1", r"kl_weight: .*not with a grid"),
        ("entropy_weight=0.1", r"entropy_weight: .*not with a grid"),
        ("estimator.stepwise=0.5", r"estimator: a grid goes with neither"),
        ("estimator.ratio_norm=true", r"estimator: a grid goes with neither"),
    ],
)
def test_a_grid_refuses_what_is_of_single_decisions(setting, reason):
    with pytest.raises(InputError, match=reason):
        load_recipe("mini", ["actions=[deviation, grid]", "start=null", setting])


def test_overrides_reach_into_mappings_and_the_last_one_wins():
    recipe = load_recipe(
        "mini",
        [
            *("rewards.hpsv2.1=0.5", "tpm.layers=2", "tpm.layers=3", "learning_rate=2e-5"),
            *("revision=null", "guidance_scale=1", "prompts=a b=c.txt", "step_range=[2, 99]"),
        ],
    )
    assert recipe.rewards == load_recipe("mini").rewards | {"hpsv2.1": 0.5}
    assert recipe.tpm == load_recipe("mini").tpm.model_copy(update={"layers": 3})
    assert (recipe.learning_rate, recipe.revision, recipe.guidance_scale) == (2e-5, None, 1.0)
    assert (recipe.prompts, recipe.step_range) == ("a b=c.txt", (2, 99))
    assert load_recipe("mini", ["rewards={noise: 1}"]).rewards == {"noise": 1}


@given(text=st.text(max_size=20))
def test_any_override_is_applied_or_refused_in_one_line(text):
    for override in (text, f"rewards.clip={text}", f"prompts={text}"):
        message = "fine"
        try:
            load_recipe("mini", [override])
        except InputError as error:
            message = str(error)
        assert len(message.splitlines()) == 1


positive = st.floats(0, 1, exclude_min=True)


@given(
    learning_rate=positive,
    weight=positive,
    kl=st.floats(0, 1e6),
    decay=st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 2**63 - 1),
    text=st.text(min_size=1).filter(str.strip),
    steps=st.none() | st.tuples(st.integers(2, 6), st.integers(6, 99)),
)
def test_yaml_reads_back_as_the_same_recipe(
    tmp_path_factory, learning_rate, weight, kl, decay, seed, text, steps
):
    values = {"learning_rate": learning_rate, "kl_weight": kl, "ema_decay": decay, "seed": seed}
    values |= {"rewards": {"hpsv2.1": weight}, "prompts": text, "step_range": steps}
    recipe = parse_recipe(LEAST | values)
    path = tmp_path_factory.getbasetemp() / "again.yaml"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


@pytest.mark.parametrize("name", names())
def test_a_shipped_recipe_reads_back_and_is_complete(name, tmp_path):
    text = to_yaml(load_recipe(name))
    (tmp_path / "again.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "again.yaml")) == load_recipe(name)
    assert all(f"{key}:" in text for key in Recipe.model_fields)


def test_a_file_extends_a_shipped_recipe_or_one_beside_it(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("extends: mini\ntpm: {layers: 2}\nrewards: {noise: 1}\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nseed: 7\n")
    recipe, mini = load_recipe(str(tmp_path / "b.yaml"), ["seed=8"]), load_recipe("mini")
    assert recipe == mini.model_copy(
        update={
            "seed": 8,
            "tpm": mini.tpm.model_copy(update={"layers": 2}),
            "rewards": mini.rewards | {"noise": 1},
        }
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("extends: a.yaml", "in a circle: a.yaml → a.yaml"),
        ("extends: b.yaml", "in a circle: a.yaml → b.yaml → a.yaml"),
        ("extends: min", "did you mean 'mini'"),
        ("extends: [mini]", "extends names a recipe or a file beside it, not"),
        ("a: b: c", "a.yaml is not YAML, line 1: mapping values"),
        ("iterations: 3\nrewards: {clip", "a.yaml is not YAML, line 2"),
        ("seed: \x07", "a.yaml is not YAML: unacceptable character"),
        ("- iterations", "holds no settings"),
        ("", "holds no settings"),
        ("1: 2", "1: "),
        ("extends: mini\ntpm:", "tpm: "),
        ("extends: mini\nrewards: &a {clip: *a}", "rewards.clip: "),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, content, message):
    (tmp_path / "a.yaml").write_text(content)
    (tmp_path / "b.yaml").write_text("extends: a.yaml")
    assert message in refused(name=tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("1e-4", 1e-4),
        ("1_000", "1_000"),
        ("2:08", "2:08"),
        ("yes", "yes"),
        ("off", "off"),
        ("2025-99-99", "2025-99-99"),
        ("True", True),
        ("~", None),
        ("", None),
        (".inf", math.inf),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert yaml12.load(f"a: {text}") == {"a": value}
    for written in (text, value):
        assert yaml12.load(yaml12.dump({"a": written})) == {"a": written}


def test_numbers_are_alike_in_files_and_overrides(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: mini\nseed: 010\nlearning_rate: 1e-4\n")
    recipe = load_recipe("mini", ["seed=010", "learning_rate=1e-4"])
    assert recipe == load_recipe(str(tmp_path / "a.yaml"))
    assert (recipe.seed, recipe.learning_rate) == (10, 1e-4)
    assert "size: " in refused("size=2:08")
    assert "attention" not in refused("attention=no", "size=0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "learning_rate: 1e-5\nseed: 1\nlearning_rate: 2e-5",
            "learning_rate is there twice, in line 1 and in line 3",
        ),
        ("tpm:\n  width: 8\n  width: 16", "width is there twice, in line 2 and in line 3"),
        ("rewards: {clip: 1, clip: 2}", "clip is there twice, in line 1 and in line 1"),
        ("<<:\n  seed: 1\n  seed: 2", "seed is there twice, in line 2 and in line 3"),
    ],
)
def test_a_key_twice_is_refused(tmp_path, content, message):
    (tmp_path / "a.yaml").write_text(content)
    assert message in refused(name=tmp_path / "a.yaml")


def test_what_cannot_be_read_is_named(tmp_path):
    assert "did you mean 'flux-coco'" in refused(name="flx-coco")
    assert "there is no file nowhere.yaml" in refused(name="nowhere.yaml")
    assert "cannot read" in refused(name=tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\xff")
    assert "not UTF-8" in refused(name=tmp_path / "a.yaml")
    with pytest.raises(InputError, match="did you mean 'mini'"):
        path_of("minni")


def test_a_copy_is_the_file_and_never_overwrites(tmp_path):
    target = tmp_path / "deep" / "mine.yaml"
    copy_recipe("mini-lifted", target)
    assert target.read_bytes() == path_of("mini-lifted").read_bytes()
    assert load_recipe(str(target)) == load_recipe("mini-lifted")
    assert header(str(target)) == header("mini-lifted")
    target.write_text("mine")
    for existing in (target, tmp_path):
        with pytest.raises(InputError, match="exists already"):
            copy_recipe("mini", existing)
    assert target.read_text() == "mine"
    assert [path.name for path in target.parent.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"backbone": "sd35"}, 12),
        ({"backbone": "sd35", "guidance_scale": 1}, 6),
        ({"backbone": "flux", "guidance_scale": 5}, 6),
        ({"backbone": "somewhere/else"}, 6),
        ({"backbone": "flux", "step_range": [4, 12]}, 8),
        ({"backbone": "sd35", "scheduler": "heun"}, 22),
        ({"backbone": "flux", "noises_per_prompt": 4}, 5.25),  # the first is one for four images
    ],
)
def test_the_cost_counts_guidance_and_evaluations(changes, passes):
    recipe = parse_recipe(LEAST | {"iterations": 10, "prompts_per_iteration": 3} | changes)
    assert cost(recipe) == Cost(images=480, forward_passes=480 * passes)


def test_the_cost_takes_the_calls_of_an_unknown_backbone():
    recipe = parse_recipe(LEAST | {"backbone": "somewhere/else"})
    assert cost(recipe, 2).forward_passes == 2 * cost(recipe).forward_passes


def test_installed_recipes_are_found_before_those_of_the_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_files, "files", lambda package: tmp_path / package)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "checkout.yaml").touch()
    assert names() == ["checkout"]
    (tmp_path / "asyncdiff_cli" / "recipes").mkdir(parents=True)
    (tmp_path / "asyncdiff_cli" / "recipes" / "installed.yaml").touch()
    assert names() == ["installed"]


def test_recipes_need_neither_torch_nor_numpy():
    code = (
        "import sys; from asyncdiff_cli.engine.training.recipe_files import load_recipe;"
        " load_recipe('mini');"
        " sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_baseline_s_scale_needs_a_baseline():
    assert load_recipe("mini", ["scale_rewards=baseline"]).scale_rewards == "baseline"
    with pytest.raises(InputError, match=r"evaluation\.every above 0"):
        load_recipe("mini", ["scale_rewards=baseline", "evaluation.every=0"])
    with pytest.raises(InputError, match="did you mean 'baseline'"):
        load_recipe("mini", ["scale_rewards=baselin"])
