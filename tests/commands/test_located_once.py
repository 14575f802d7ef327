"""A model is looked up once a command, however many parts of the command ask about it."""

import shutil

import pytest

from asyncdiff_cli.engine.backbones import source
from tests.helpers.training import settings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny-sd3"


@pytest.fixture
def lookups(pipelines, tmp_path, monkeypatch):
    """The SD3 pipeline in the hub's cache, offline; what is asked of the hub, call by call."""
    cached = tmp_path / "hub" / "models--someone--tiny-sd3"
    shutil.copytree(pipelines["sd3"], cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    asked, honest = [], source.hf_hub_download

    def download(repo, file, **options):
        asked.append((repo, file))
        return honest(repo, file, **options)

    monkeypatch.setattr(source, "hf_hub_download", download)
    return asked


TRAIN = ("train", "--recipe=mini", *settings({"iterations": 1, "evaluation": {"every": 0}}))


@pytest.mark.parametrize(
    "command",
    [
        ("sample", "a cat", "--steps=1", "--size=16", "--deviation=0"),
        ("eval", "--limit=1", "--steps=1", "--size=16", "--policies=baseline", "--rewards=noise"),
        TRAIN,
    ],
    ids=lambda command: command[0],
)
def test_a_repository_is_looked_up_once(asyncdiff, lookups, command):
    model = ("--backbone", REPOSITORY, "--device=cpu", "--out", "here")
    dataset = ("--dataset=mini",) if command[0] == "eval" else ()
    outcome = asyncdiff(*command, *model, *dataset)
    assert outcome.code == 0, outcome.err
    assert lookups == [(REPOSITORY, "model_index.json")]
