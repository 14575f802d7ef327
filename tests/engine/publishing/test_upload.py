"""What goes up, and what is refused, against a stand-in for the hub."""

import pytest
from huggingface_hub import HfApi, constants

from asyncdiff_cli.engine import AsyncDiffError, InputError, Schedule
from asyncdiff_cli.engine import hub as engine_hub
from asyncdiff_cli.engine.publishing.destination import Destination
from asyncdiff_cli.engine.publishing.upload import look_up, upload

SCHEDULE = Schedule(deviations=(0.5, 0.25), steps=3)
CARD = "---\nlibrary_name: asyncdiff\nlicense: mit\n---\n# a card\n"


@pytest.fixture
def push(hub, tmp_path):
    """Push a schedule with a card and a chart, or other files."""

    def call(name="alice/s", card=CARD, **options):
        files = {"README.md": card, "schedule.json": "{}", "schedule.png": "a chart"}
        paths = []
        for file, text in files.items():
            (tmp_path / file).write_text(text)
            paths.append(tmp_path / file)
        destination = Destination(name, **options)
        return upload(paths, destination, look_up(destination, SCHEDULE), "Push a schedule")

    return call


def refused(push, kind=InputError, **options):
    with pytest.raises(AsyncDiffError) as caught:
        push(**options)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_of_it_goes_up_in_one_commit(hub, push):
    pushed = push()
    assert set(hub.files("alice/s")) == {"README.md", "schedule.json", "schedule.png"}
    assert hub.files("alice/s", pushed.commit)["schedule.png"] == b"a chart"  # a large file
    assert hub.asked.count("commit") == 1
    assert pushed.url == f"{hub.url}/alice/s/commit/{pushed.commit}"
    repository = hub.repositories["alice/s"]
    assert not repository.private
    assert repository.commits[pushed.commit].summary == "Push a schedule"


def test_what_is_there_already_makes_no_commit(hub, push):
    first = push()
    again = push()
    assert (again.commit, again.changed, first.changed) == (first.commit, False, True)
    assert hub.asked.count("commit") == 1


def test_nothing_is_overwritten_unless_it_is_asked_for(hub, push):
    push()
    hub.asked.clear()
    line = refused(push, card=CARD + "more")
    assert line.startswith("alice/s has another README.md: give --replace to overwrite it")
    assert hub.asked == ["info"]
    replaced = push(card=CARD + "more", replaces=True)
    assert hub.files("alice/s", replaced.commit)["README.md"].decode() == CARD + "more"


def test_a_pull_request_changes_nothing(hub, push):
    push()
    proposed = push(card=CARD + "more", proposes=True)
    assert proposed.url == f"{hub.url}/alice/s/discussions/1"
    assert hub.files("alice/s")["README.md"].decode() == CARD
    assert hub.files("alice/s", "refs/pr/1")["README.md"].decode() == CARD + "more"


def test_a_branch_is_made(hub, push):
    push()
    push(card=CARD + "more", branch="v2")  # where nothing was yet
    assert hub.files("alice/s")["README.md"].decode() == CARD
    assert hub.files("alice/s", "v2")["README.md"].decode() == CARD + "more"
    assert "has another README.md" in refused(push, card=CARD + "other", branch="v2")


def test_a_new_repository_may_be_private(hub, push):
    push(private=True)
    assert hub.repositories["alice/s"].private
    push("alice/open")
    assert "alice/open is public" in refused(push, name="alice/open", private=True)


@pytest.mark.parametrize(
    ("files", "held"),
    [
        ({"model_index.json": b"{}"}, "model_index.json"),
        ({"README.md": b"---\nlibrary_name: diffusers\n---\n"}, "README.md"),
        ({"README.md": CARD.encode(), "model.safetensors": b"", "config.json": b""}, "config.json"),
    ],
)
def test_a_repository_of_something_else_is_left_alone(hub, push, files, held):
    hub.put("alice/s", files)
    for options in ({}, {"replaces": True}):
        line = refused(push, **options)
        assert line.startswith(f"alice/s holds something else ({held}")
        assert "name another repository" in line
    assert hub.files("alice/s") == files


def test_an_empty_repository_is_filled(hub, push):
    hub.put("alice/s", {".gitattributes": b""})
    assert push().changed


def test_what_has_changed_since_is_not_overwritten(hub, push, monkeypatch):
    push()

    commit = HfApi.create_commit

    def after_another(*arguments, **options):
        hub.put("alice/s", {"README.md": b"another"})
        return commit(*arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", after_another)
    line = refused(push, AsyncDiffError, card=CARD + "more", replaces=True)
    assert line == "alice/s has changed meanwhile: push again"


def test_a_card_that_the_hub_does_not_take_leaves_no_repository(hub, push):
    line = refused(push, card=CARD.replace("mit", "none"))
    assert line.startswith('the hub does not take the card: "license" must be one of [mit')
    assert hub.repositories == {}


def test_without_a_token(push, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "there is no token of the hub: `hf auth login`" in refused(push, AsyncDiffError)


def test_a_token_that_is_not_taken(push, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "the hub does not take this token" in refused(push, AsyncDiffError)


def test_no_right_to_write(hub, push):
    hub.put("bob/open", {".gitattributes": b""})
    for name in ("bob/s", "bob/open"):
        line = refused(push, AsyncDiffError, name=name)
        assert line.startswith(f"this token may not write to {name}: `hf auth login`")


def test_a_pull_request_needs_a_repository(push):
    assert "leave --create-pr out" in refused(push, proposes=True)


def test_without_a_network(hub, push, monkeypatch):
    hub.down = True
    line = refused(push, AsyncDiffError)
    assert line.startswith("alice/s could not be pushed to (")
    assert line.endswith("connect, and push again")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    engine_hub._answers.cache_clear()
    line = refused(push, AsyncDiffError)
    assert line.startswith("http://127.0.0.1:9 cannot be asked, it does not answer: connect, or")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused(push, AsyncDiffError)


@pytest.mark.parametrize("name", ["tpm", "a/b/c", "al ice/tpm", "alice/", "alice/tpm@v2", "a--b/c"])
def test_a_repository_has_an_owner_and_a_name(name):
    with pytest.raises(InputError, match="does not name a repository: write USER/NAME"):
        Destination(name)


@pytest.mark.parametrize(
    "options",
    [{"branch": "refs/pr/1"}, {"branch": "0" * 40}, {"proposes": True, "replaces": True}],
)
def test_what_cannot_be_asked_together(options):
    with pytest.raises(InputError):
        Destination("alice/s", **options)
