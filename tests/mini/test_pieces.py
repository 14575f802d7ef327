import random
from pathlib import Path

import pytest

from mini.pieces import join, split


@pytest.fixture
def source(tmp_path: Path) -> Path:

    directory = tmp_path / "source"
    (directory / "judge").mkdir(parents=True)
    (directory / "judge" / "checkpoint.pt").write_bytes(random.Random(0).randbytes(5000))
    (directory / "log.jsonl").write_text("{}\n")
    return directory


def test_pieces_are_bounded_and_join_to_the_same_files(source: Path, tmp_path: Path) -> None:
    count = split(source, tmp_path / "pieces", limit=2000)
    pieces = sorted((tmp_path / "pieces").glob("piece-*"))
    assert count == len(pieces) == 3
    assert all(piece.stat().st_size <= 2000 for piece in pieces)
    join(tmp_path / "pieces", tmp_path / "again")
    for path in ("judge/checkpoint.pt", "log.jsonl"):
        assert (tmp_path / "again" / path).read_bytes() == (source / path).read_bytes()


def test_only_what_is_named_travels(source: Path, tmp_path: Path) -> None:
    split(source, tmp_path / "pieces", ["judge", "absent"])
    join(tmp_path / "pieces", tmp_path / "again")
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["judge"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"other")])
def test_a_missing_or_damaged_piece_unpacks_nothing(source: Path, tmp_path: Path, harm) -> None:
    split(source, tmp_path / "pieces", limit=2000)
    harm(tmp_path / "pieces" / "piece-01")
    with pytest.raises(ValueError, match="piece-01 is missing or damaged"):
        join(tmp_path / "pieces", tmp_path / "again")
    assert not (tmp_path / "again").exists()
