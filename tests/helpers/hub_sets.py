"""A data set in the place of one on the hub, with a directory for each of its commits."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from asyncdiff_cli.engine.prompts import hub_set

REPO = "someone/prompts"


@dataclass
class StandIn:
    """The data set `REPO`, whose branch points at `head`.

    Attributes:
        commits: the directory of each commit.
        opened: what was opened by `datasets`, in order.
    """

    head: str = ""
    commits: dict[str, Path] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    reachable: bool = True

    def commit(self, digit: str, directory: Path, **columns: list) -> str:
        """Let the branch point at a new commit, of one table."""
        self.head = digit * 40
        self.commits[self.head] = directory / digit
        write_table(directory / digit / "train.parquet", **columns)
        return self.head


def write_table(path: Path, **columns: list) -> Path:
    """A table as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def stand_in(monkeypatch, cache: Path) -> StandIn:
    """Make the hub one of a single data set, and keep what is read of it in a cache."""
    import datasets

    made = StandIn()

    def dataset_info(self, repo, revision=None):
        if repo != REPO:
            raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))
        return SimpleNamespace(sha=made.head)

    def local(function):
        def call(place, *arguments, revision=None, **options):
            made.opened.append(function.__name__)
            place = str(made.commits[revision]) if place == REPO else place
            return function(place, *arguments, **options)

        return call

    hub_set._looked_up.cache_clear()
    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(hub_set, "is_reachable", lambda: made.reachable)
    monkeypatch.setattr("asyncdiff_cli.engine.hub.is_reachable", lambda: made.reachable)
    for name in (
        "get_dataset_config_names",
        "get_dataset_default_config_name",
        "load_dataset_builder",
    ):
        monkeypatch.setattr(datasets, name, local(getattr(datasets, name)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return made
