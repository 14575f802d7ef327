"""Modules and schedules of the hub: which commit was used is known, and is fetched again."""

import json

import pytest
import torch

from asyncdiff_cli.engine import (
    AsyncDiffError,
    InputError,
    LearnedDeviation,
    Schedule,
    policy_from_dict,
)
from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.backbones.registry import REGISTRY
from asyncdiff_cli.engine.policies.recorded import check_policy
from asyncdiff_cli.engine.policies.specs import find_policy, parse_policy, pinned, read_policy
from asyncdiff_cli.engine.policies.spectrum_file import MeasuredSpectrum
from asyncdiff_cli.engine.repository import Repository
from asyncdiff_cli.engine.schedules.distill import distillation_way
from asyncdiff_cli.engine.schedules.distill_request import parse_distill_request
from asyncdiff_cli.engine.training.run_options import find_run
from tests.helpers.modules import randomised, tiny

MINI = REGISTRY["mini"]
SPECTRUM = MeasuredSpectrum(frequency=(0.0, 1.0), std=(2.0, 1.0), share=(0.25, 0.75))


def module_files(directory, tpm):
    tpm.save_pretrained(directory)
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def text_of(saved):
    return saved.model_dump_json(exclude_none=True).encode()


def schedule(*deviations, **known):
    return text_of(Schedule(deviations=deviations, steps=len(deviations) + 1, **known))


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("alice/tpm", ("alice/tpm", None)),
        ("alice/tpm@v2", ("alice/tpm", "v2")),
        ("alice/tpm@refs/pr/3", ("alice/tpm", "refs/pr/3")),
        ("./alice/tpm", None),
        ("~/tpm", None),
        ("a/b/c", None),
        ("alice/", None),
        ("…/tpm", None),
        ("al ice/tpm", None),
        ("alice/tpm@", None),
        ("mini:lifted", None),
    ],
)
def test_what_can_be_a_repository(text, repository):
    assert Repository.read(text) == repository
    assert repository is None or str(Repository(*repository)) == text


COMMIT = "12" * 20


@pytest.mark.parametrize(
    ("text", "source", "gamma"),
    [
        ("schedule:alice/s", "alice/s", None),
        ("schedule:alice/s@1.5", "alice/s", 1.5),
        ("calibrated:alice/s@v2@1.5", "alice/s@v2", 1.5),
        (f"spectral:alice/s@{COMMIT}", f"alice/s@{COMMIT}", None),  # though it is a number
        (f"learned:alice/t@{COMMIT}@0.5", f"alice/t@{COMMIT}", 0.5),
        ("schedule:0.5/0.2", None, None),
        ("schedule:alice/s.json", "alice/s.json", None),
    ],
)
def test_lines_that_name_repositories(text, source, gamma):
    spec = read_policy(text)
    assert (spec.source, spec.gamma) == (source, gamma)


def test_a_module_is_recorded_with_its_commit_and_found_again(hub, tmp_path):
    first = hub.put("alice/tpm", module_files(tmp_path / "a", tiny()))
    policy = LearnedDeviation.load("alice/tpm")
    assert policy.source == f"alice/tpm@{first}"
    second = hub.put("alice/tpm", module_files(tmp_path / "b", randomised(tiny())))
    again = policy_from_dict(json.loads(json.dumps(policy.to_dict())))
    assert (again.source, again.fingerprint) == (policy.source, policy.fingerprint)
    newest = LearnedDeviation.load("alice/tpm@main")
    assert newest.source == f"alice/tpm@{second}"
    assert newest.fingerprint != policy.fingerprint
    assert not torch.equal(newest.tpm.readout, policy.tpm.readout)


def test_the_files_of_a_module_are_of_one_commit(hub, tmp_path, monkeypatch):
    """The branch moves between the two."""
    import huggingface_hub

    files = module_files(tmp_path / "a", tiny())
    first, download = hub.put("alice/tpm", files), huggingface_hub.hf_hub_download

    def moving(*arguments, **options):
        found = download(*arguments, **options)
        hub.put("alice/tpm", {})
        return found

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", moving)
    assert LearnedDeviation.load("alice/tpm").source == f"alice/tpm@{first}"


def test_a_schedule_is_recorded_with_its_commit(hub):
    commit = hub.put("alice/s", {"schedule.json": schedule(0.5, 0.25)})
    for _ in range(2):  # for as many prompts as name it
        label, policy, gamma = parse_policy("schedule:alice/s@1.5", MINI)
    assert hub.asked.count("resolve") == 2  # its head, and itself
    assert (label, gamma) == ("schedule:alice/s", 1.5)
    record = json.loads(json.dumps(policy.to_dict()))
    assert record["source"] == f"alice/s@{commit}"
    hub.repositories.clear()
    check_policy("a.png", record)  # whose deviations are in the record
    assert policy_from_dict(record) == policy
    assert policy.deviations == (0.5, 0.25)


def test_a_spectrum_is_recorded_with_its_commit(hub):
    commit = hub.put("alice/s", {"spectrum.json": text_of(SPECTRUM)})
    policy = parse_policy(f"spectral:alice/s@{commit}", MINI).policy
    assert policy.to_dict()["source"] == f"alice/s@{commit}"
    assert policy_from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert policy.spectrum == SPECTRUM.rows


def test_files_of_the_disk_have_no_commit(tmp_path):
    (tmp_path / "s.json").write_bytes(schedule(0.5))
    assert "source" not in parse_policy(f"schedule:{tmp_path}/s.json", MINI).policy.to_dict()


def test_a_line_is_pinned_for_a_run_that_goes_on(hub):
    commit = hub.put("alice/s", {"schedule.json": schedule(0.5, 0.25)})
    assert pinned("schedule:alice/s") == f"schedule:alice/s@{commit}"
    assert pinned("fixed:0.5") == "fixed:0.5"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("schedule:alice/none", "there is no repository alice/none, or it is private"),
        ("schedule:alice/s@v9", "alice/s has no such revision"),
        ("spectral:alice/s", "alice/s holds no spectrum.json"),
        ("calibrated:alice/s", "alice/s was not made by calibration: name it schedule:alice/s"),
        ("learned:alice/s", "alice/s holds no timestep prediction module"),
        ("schedule:alice/damaged", "schedule.json is damaged: deviations: Field required"),
    ],
)
def test_what_is_not_there_is_one_line(hub, text, line):
    hub.put("alice/s", {"schedule.json": schedule(0.5)})
    hub.put("alice/damaged", {"schedule.json": b'{"steps": 2}'})
    with pytest.raises(InputError) as caught:
        parse_policy(text, MINI)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_network_the_cache_has_to_do(hub, monkeypatch):
    commit = hub.put("alice/s", {"schedule.json": schedule(0.5)})
    parse_policy("schedule:alice/s", MINI)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert parse_policy(f"schedule:alice/s@{commit}", MINI).policy.deviations == (0.5,)
    with pytest.raises(AsyncDiffError, match="alice/other is not downloaded and cannot be reached"):
        parse_policy("schedule:alice/other", MINI)


def test_what_is_on_the_disk_is_not_looked_for_on_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alice" / "s").mkdir(parents=True)
    with pytest.raises(InputError, match=r"alice/s is not a \.json file"):
        find_policy("schedule:alice/s")
    assert hub.asked == []


def test_a_run_begins_at_the_same_commit_when_it_goes_on(hub, tmp_path):
    commit = hub.put("alice/s", {"schedule.json": schedule(0.5, 0.25)})
    recipe, _ = find_run("mini", None, ["start=schedule:alice/s"], None, tmp_path / "run", None)
    assert recipe.start == f"schedule:alice/s@{commit}"


def test_a_distillation_says_which_commit_it_is_of(hub, tmp_path):
    commit = hub.put("alice/tpm", module_files(tmp_path / "tpm", tiny()))
    given = {"out": tmp_path / "s.json", "limit": 2}
    way = distillation_way(*parse_distill_request("alice/tpm", ModelChoice(), **given))
    assert way.settings["module"] == f"alice/tpm@{commit}"
    assert way.command.startswith(f"asyncdiff distill alice/tpm@{commit} ")
