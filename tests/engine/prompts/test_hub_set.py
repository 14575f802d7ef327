"""Prompts of data sets: which rows of which column, at one commit, and what is refused."""

import json
from pathlib import Path

import pytest

pytest.importorskip("datasets", reason="datasets is not installed")

from asyncdiff_cli.engine.backbones.choice import ModelChoice
from asyncdiff_cli.engine.errors import AsyncDiffError, AsyncDiffWarning, InputError
from asyncdiff_cli.engine.evaluation.comparison import Comparison
from asyncdiff_cli.engine.evaluation.scoring import prompts_of_pictures
from asyncdiff_cli.engine.prompts import hub_set
from asyncdiff_cli.engine.prompts.hub_set import HubSet, read_hub_set
from asyncdiff_cli.engine.prompts.lines import read_prompts
from asyncdiff_cli.engine.prompts.load import (
    check_source,
    load_evaluation_prompts,
    load_prompts,
)
from asyncdiff_cli.engine.schedules.request import ScheduleRequest, parse_drawn_request
from asyncdiff_cli.engine.training.recipe_files import load_recipe, to_yaml
from asyncdiff_cli.engine.training.run_options import find_run
from tests.helpers.hub_sets import REPO, stand_in, write_table
from tests.helpers.stores import begun

MANY = [f"a picture of {n}" for n in range(60)]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub in its first state, and another directory that is the current one."""
    found = stand_in(monkeypatch, tmp_path / "cache")
    found.commit("a", tmp_path / "hub", prompt=MANY, note=["x"] * len(MANY))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return found


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Data sets in directories of the current one, in several forms."""
    monkeypatch.chdir(tmp_path)
    write_table(
        tmp_path / "table" / "train.parquet",
        prompt=["a cat", " ", None, "  a dog\n"],
        note=["first", "", None, "last"],
        count=[1, 2, 3, 4],
        tags=[["x"], [], None, ["y"]],
    )
    write_table(tmp_path / "notes" / "train.parquet", a=["x"], b=["y"])
    write_table(tmp_path / "blank" / "train.parquet", prompt=["", None])
    for split in ("train", "test"):
        file = tmp_path / "csv" / f"{split}.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"caption,count\na {split} cat,1\n,2\n")
    (tmp_path / "two").mkdir()
    for config in ("en", "de"):
        (tmp_path / "two" / f"{config}.jsonl").write_text(json.dumps({"text": config}) + "\n")
    head = "\n".join(
        f"- {{config_name: {name}, data_files: {name}.jsonl}}" for name in ("en", "de")
    )
    (tmp_path / "two" / "README.md").write_text(f"---\nconfigs:\n{head}\n---\n")
    return tmp_path


@pytest.mark.filterwarnings("ignore::asyncdiff_cli.engine.AsyncDiffWarning")
@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("hf:./table", ["a cat", "a dog"]),
        ("hf:./table:note", ["first", "last"]),
        ("hf:./table:prompt,rows=1", ["a cat"]),
        ("hf:./csv,split=test", ["a test cat"]),
        ("hf:./csv:caption,split=train", ["a train cat"]),
        ("hf:./two,config=de", ["de"]),
        ("hf:./two:text,config=en,split=train,rows=5", ["en"]),
    ],
)
def test_the_rows_of_a_directory_in_their_order(local, source, texts):
    assert [text for _, text in read_hub_set(source)] == texts


def test_rows_that_are_empty_are_told_of(local):
    said = r"table: 2 of 4 rows are empty and left out, the first of them row 1"
    with pytest.warns(AsyncDiffWarning, match=said):
        rows = read_hub_set("hf:./table")
    assert rows[1] == (f"hf:{local}/table row 3", "a dog")


@pytest.mark.filterwarnings("ignore::asyncdiff_cli.engine.AsyncDiffWarning")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hf:./table:promt", "unknown column .*did you mean 'prompt'.*prompt, note, count, tags"),
        ("hf:./table:count", "the column count holds no text; of text there are prompt, note"),
        ("hf:./table:tags", "the column tags holds no text"),
        ("hf:./csv:count,split=test", "the column count holds no text; of text there are caption"),
        ("hf:./notes", "name a column; of text there are a, b"),
        ("hf:./blank", "holds no prompt"),
        ("hf:./csv", "has the splits train, test: choose one by ,split=NAME"),
        ("hf:./csv,split=valid", "unknown split .*'valid' .known: train, test"),
        ("hf:./two", "has the configs en, de: choose one by ,config=NAME"),
        ("hf:./two,config=fr", "unknown config .*'fr' .known: en, de"),
        ("hf:./two,rows=0", "rows: .*greater than or equal to 1"),
        ("hf:./two,rows=many", "rows: .*a valid integer"),
        ("hf:./two,slit=en", "unknown option .*did you mean 'split'"),
        ("hf:./two,config=en,config=de", "give config= once, with its value"),
        ("hf:./two,config=", "give config= once, with its value"),
        ("hf:./table@main", "a revision belongs to a repository, and ./table is none"),
        ("hf:./nowhere", "there is no directory ./nowhere"),
        ("hf:prompts", r"prompts is no data set of the hub: write hf:USER/NAME\[@REVISION\]"),
        ("hf:", "hf: is no data set: write hf:USER/NAME"),
    ],
)
def test_what_is_refused(local, source, message):
    with pytest.raises(InputError, match=message) as refused:
        load_evaluation_prompts(source)
    assert "\n" not in str(refused.value)


def test_a_directory_that_has_the_name_of_a_repository(local):
    (local / "me" / "set").mkdir(parents=True)
    with pytest.raises(InputError, match=r"me/set is a directory here: write hf:./me/set for it"):
        check_source("hf:me/set:prompt")


def test_a_directory_that_holds_no_data(local):
    (local / "none").mkdir()
    with pytest.raises(AsyncDiffError, match=r"none cannot be read: .*doesn't contain any data"):
        read_hub_set("hf:./none")


def test_more_text_than_is_believed(local, monkeypatch):
    monkeypatch.setattr(hub_set, "MAX_TEXT", 4)
    with pytest.raises(InputError, match=r"read the first N rows by ,rows=N"):
        read_hub_set("hf:./table:note")


def test_a_name_says_all_that_is_asked():
    source = "hf:me/set@refs/pr/1:a column,split=test,config=en,rows=10"
    parsed = HubSet.parse(source)
    assert (parsed.repo, parsed.revision, parsed.column) == ("me/set", "refs/pr/1", "a column")
    assert (parsed.split, parsed.config, parsed.rows) == ("test", "en", 10)
    assert str(parsed) == source


def test_a_set_is_read_once_and_stays_what_it_was(hub, tmp_path):
    first = load_prompts(f"hf:{REPO}:prompt", "train")
    validation = load_prompts(f"hf:{REPO}:prompt", "validation")
    assert first.name == validation.name == f"hf:{REPO}@{'a' * 40}:prompt"
    assert sorted(first.texts + validation.texts) == sorted(MANY)
    opened = len(hub.opened)
    hub.commit("b", tmp_path / "hub", prompt=["another"])
    hub_set._looked_up.cache_clear()
    assert load_evaluation_prompts(f"hf:{REPO}:prompt").texts == ("another",)
    assert len(hub.opened) == 2 * opened
    hub.reachable = False
    assert load_prompts(first.name, "train") == first
    assert len(hub.opened) == 2 * opened


def test_a_set_goes_where_downloads_go(hub, tmp_path):
    load_prompts(f"hf:{REPO}", "train", tmp_path / "data")
    kept = [path.relative_to(tmp_path).parts for path in (tmp_path / "data").rglob("*.json")]
    assert kept == [("data", "hf", "someone%2Fprompts", "a" * 40, "all.json")]
    assert not (tmp_path / "cache").exists()


def test_only_the_column_is_read_of_parquet(hub, monkeypatch):
    import datasets

    asked = []
    before = datasets.load_dataset_builder
    monkeypatch.setattr(
        datasets, "load_dataset_builder", lambda *a, **k: asked.append(k) or before(*a, **k)
    )
    read_hub_set(f"hf:{REPO}")
    assert asked[-1]["columns"] == ["prompt"]


def test_no_hub(hub):
    hub.reachable = False
    for name in (REPO, f"{REPO}@{'a' * 40}"):
        with pytest.raises(
            AsyncDiffError, match=r"is not downloaded and the hub cannot be reached"
        ):
            load_prompts(f"hf:{name}", "train")


def test_a_set_that_is_not_there(hub):
    with pytest.raises(InputError, match="no repository datasets/me/none, or it is private"):
        load_prompts("hf:me/none", "train")


def test_the_library_is_not_installed(hub, monkeypatch):
    monkeypatch.setattr(hub_set, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs datasets: pip install 'asyncdiff-cli\[datasets\]'"
    ):
        check_source(f"hf:{REPO}")


def test_wherever_prompts_are_read(hub, tmp_path):
    source, name = f"hf:{REPO}:prompt,rows=20", f"hf:{REPO}@{'a' * 40}:prompt,rows=20"
    lines = read_prompts(Path(source))  # as `sample --prompt-file` does
    assert [line.prompt for _, line in lines] == MANY[:20]
    assert lines[3][0] == f"{name} row 3"
    pictures = [tmp_path / f"{n}.png" for n in range(20)]
    assert prompts_of_pictures(Path(source), pictures) == MANY[:20]
    choice = ModelChoice()
    wanted = Comparison(choice, "baseline", dataset=source, limit=5)
    assert wanted.load_prompts()[0].name == name
    assert wanted.default_out.name == "mini-prompts"
    request = parse_drawn_request(
        ScheduleRequest, choice, out=tmp_path / "s.json", prompts=Path(source)
    )
    assert request.source("mini") == name


def test_a_store_goes_on_with_its_commit(hub, tmp_path):
    name = f"hf:{REPO}@{'a' * 40}:prompt"
    store = begun(tmp_path / "store", dataset=name)
    hub.commit("b", tmp_path / "hub", prompt=["another"])
    for asked, then in (
        (f"hf:{REPO}:prompt", name),
        (f"hf:{REPO}:note", f"hf:{REPO}@{'b' * 40}:note"),
        (f"hf:{REPO}@{'c' * 40}:prompt", f"hf:{REPO}@{'c' * 40}:prompt"),
    ):
        wanted = Comparison(ModelChoice(), "baseline", dataset=asked)
        assert wanted.going_on(store.path).dataset == then
    assert wanted.going_on(tmp_path / "new") is wanted


def test_a_run_goes_on_with_its_commit(hub, tmp_path):
    given = Path(f"hf:{REPO}:prompt")
    recipe, _ = find_run("mini", None, (), None, tmp_path / "run", given)
    assert recipe.prompts == f"hf:{REPO}@{'a' * 40}:prompt"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    hub.reachable = False
    again, _ = find_run(None, None, (), tmp_path / "run", None, None)
    assert again == recipe == load_recipe(str(tmp_path / "run" / "recipe.yaml"))
