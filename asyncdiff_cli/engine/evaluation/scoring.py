"""A table of scores from files: which pictures, for which prompts, by which rewards."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from PIL import Image
from pydantic import AfterValidator, BaseModel

from asyncdiff_cli.engine.checks import check_count
from asyncdiff_cli.engine.drawing.provenance import PanelProvenance, is_panel, read_provenance
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError
from asyncdiff_cli.engine.fields import Prompt, Text, not_empty, validated
from asyncdiff_cli.engine.files import expanded, write_apart
from asyncdiff_cli.engine.pictures import read_picture
from asyncdiff_cli.engine.prompts.files import Entry, read_entries
from asyncdiff_cli.engine.prompts.lines import Line
from asyncdiff_cli.engine.rewards import entry, load_reward, reward_class
from asyncdiff_cli.engine.text import visible

if TYPE_CHECKING:
    from asyncdiff_cli.engine.rewards.base import Reward


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class ScoredPicture:
    """A file and the prompt that it is scored for; None if it has none and none is read."""

    path: Path
    prompt: str | None

    def open(self) -> Image.Image:
        """Read as `read_picture` does."""
        return read_picture(self.path)


@dataclass
class Scores:
    """What was scored, and what could not be."""

    pictures: list[ScoredPicture]
    values: dict[str, list[float]] = field(default_factory=dict)
    """The scores of each reward, one per picture."""
    details: dict[str, list[Any]] = field(default_factory=dict)
    """What each picture's score is the mean of, of the rewards that are means."""
    skipped: dict[Path, str] = field(default_factory=dict)
    """Files that could not be scored, and why."""
    rewards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each reward ran with."""

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Mean and standard error of each reward; of one picture there is no standard error."""
        return {
            name: {
                "mean": statistics.fmean(values),
                "standard_error": statistics.stdev(values) / math.sqrt(len(values))
                if len(values) > 1
                else None,
                "n": len(values),
            }
            for name, values in self.values.items()
        }

    def report(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "images": [
                {
                    "path": str(picture.path),
                    "prompt": picture.prompt,
                    "scores": {name: values[i] for name, values in self.values.items()},
                    **(
                        {"details": {name: values[i] for name, values in self.details.items()}}
                        if self.details
                        else {}
                    ),
                }
                for i, picture in enumerate(self.pictures)
            ],
            "summary": self.summary(),
            "skipped": [{"path": str(p), "reason": reason} for p, reason in self.skipped.items()],
            "rewards": self.rewards,
        }


def find_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and the pictures in the directories (not in theirs), each once and in order.

    The panels that `sample --compare` puts beside its pictures are left out.

    Raises:
        InputError: for a path that does not exist, or if there is no picture.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            pictures = sorted(f for f in path.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES)
            files += [file for file in pictures if not is_panel(file)]
        elif path.exists():
            files.append(path)
        else:
            raise InputError(f"there is no file or directory {path}")
    if not files:
        raise InputError(f"there are no pictures ({', '.join(PICTURE_SUFFIXES)}) in what was given")
    return list(dict.fromkeys(files))


class Pairing(BaseModel):
    """A line of JSON Lines that gives a picture its prompt."""

    image: Annotated[Text, AfterValidator(not_empty)]
    """A path from the current directory or from that of the file, or the end of one."""
    prompt: Prompt


def prompts_of_pictures(file: Path, pictures: Sequence[Path]) -> list[str]:
    """The prompts of pictures: one a line in their order, or by `{"image": …, "prompt": …}`.

    Raises:
        InputError: as `read_entries`; for another number of prompts than pictures; for a line that
            is no pair, may mean several pictures or one that has a prompt; and for a picture
            without a prompt.
    """
    entries = read_entries(file)
    if any("image" in entry.values for entry in entries):
        return _by_path(file, entries, pictures)
    if len(entries) != len(pictures):
        raise InputError(f"{file} has {len(entries)} prompts for {len(pictures)} pictures")
    return [validated(Line, entry.values, entry.where).prompt for entry in entries]


def find_pairs(
    paths: Sequence[Path], prompt: str | None = None, prompts: Path | None = None
) -> tuple[list[Path], list[str] | None]:
    """The files of pictures, and a prompt for each; None for those that they carry.

    Args:
        prompt, prompts: one for all, or a file of them.

    Raises:
        InputError: as `find_files` and `prompts_of_pictures`, and for both.
    """
    if prompt is not None and prompts is not None:
        raise InputError("--prompt and --prompts exclude each other")
    files = find_files(paths)
    if prompts is not None:
        return files, prompts_of_pictures(prompts, files)
    return files, None if prompt is None else [prompt] * len(files)


def _by_path(file: Path, entries: Sequence[Entry], pictures: Sequence[Path]) -> list[str]:
    """The prompts of pictures whose paths are in the entries; entries of others are left alone."""
    by_picture: dict[Path, tuple[str, str]] = {}
    places = list(dict.fromkeys(path.resolve() for path in pictures))
    for where, values in entries:
        pairing = validated(Pairing, values, where)
        meant = _meant(expanded(pairing.image), file, places)
        if len(meant) > 1:
            raise InputError(f"{where}: {pairing.image} may be {meant[0]} or {meant[1]}")
        for place in meant:
            if place in by_picture:
                raise InputError(f"{where}: {pairing.image} has a prompt at {by_picture[place][0]}")
            by_picture[place] = where, pairing.prompt
    if missing := [path for path in pictures if path.resolve() not in by_picture]:
        raise InputError(f"{file} has no prompt for {missing[0]} (of {len(missing)} without)")
    return [by_picture[path.resolve()][1] for path in pictures]


def _meant(image: Path, file: Path, places: Sequence[Path]) -> list[Path]:
    """The places that a path is, as written; else those that end in it."""
    written = {(directory / image).resolve() for directory in (Path(), file.parent)}
    exact = [place for place in places if place in written]
    return exact or [place for place in places if place.parts[-len(image.parts) :] == image.parts]


def open_pictures(
    files: Sequence[Path], prompts: Sequence[str] | None, rewards: Sequence[type[Reward]]
) -> tuple[list[ScoredPicture], dict[Path, str]]:
    """The pictures that can be scored, with their prompts, and the others with the reason.

    Args:
        prompts: one per file; None for those that the files carry in their provenance.
        rewards: what they are scored by: each must take the picture, and some need a prompt.
    """
    pictures, skipped = [], {}
    for index, path in enumerate(files):
        try:
            image = read_picture(path)
            prompt = prompts[index] if prompts else _recorded_prompt(path, rewards)
            for reward in rewards:
                reward.check_image(image)
                if prompt is not None and (refusal := reward.refuses(prompt)):
                    raise InputError(refusal)
        except InputError as error:
            skipped[path] = str(error).removeprefix(f"{path} ")
        else:
            pictures.append(ScoredPicture(path, prompt))
    return pictures, skipped


def _recorded_prompt(path: Path, rewards: Sequence[type[Reward]]) -> str | None:
    """The prompt in a picture's provenance; None if there is none and no reward reads it."""
    try:
        record = read_provenance(path)
        if isinstance(record, PanelProvenance):
            raise InputError("it is a panel of several pictures")
        return record.prompt
    except InputError as error:
        if any(reward.reads_prompt for reward in rewards):
            raise InputError(f"{error}: give --prompt or --prompts") from None
        return None


def score_files(
    paths: Sequence[Path],
    names: Sequence[str],
    prompt: str | None = None,
    prompts: Path | None = None,
    reward_paths: Mapping[str, Path] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    on_scored: Callable[[str, int, int], None] | None = None,
) -> Scores:
    """Score pictures reward by reward, so that one model at a time is in memory.

    Args:
        paths: files and directories of pictures.
        prompt, prompts: one for all, or a file of them; default those in the files' provenance.
        reward_paths: local checkpoints by reward.
        on_scored: called with the reward's name, how many pictures it has scored, and of how many.

    Raises:
        InputError: for what can be refused before a model is loaded.
        AsyncDiffError: for a reward that cannot be loaded, or a score that is no number.
    """
    check_count("--batch-size", batch_size)
    files, texts = find_pairs(paths, prompt, prompts)
    pictures, skipped = open_pictures(files, texts, [reward_class(name) for name in names])
    result = Scores(pictures, skipped=skipped)
    if not pictures:
        return result
    from asyncdiff_cli.engine.rewards.base import BadScoreError
    from asyncdiff_cli.engine.rewards.group import ran_with

    for name in names:
        path = (reward_paths or {}).get(name)
        reward = load_reward(name, path, device, dtype)
        result.values[name], step = [], batch_size or reward.batch_size
        for start in range(0, len(pictures), step):
            batch = pictures[start : start + step]
            images, texts = [p.open() for p in batch], [p.prompt or "" for p in batch]
            try:
                scores = reward.score(images, texts)
            except BadScoreError as error:
                raise AsyncDiffError(f"{batch[error.index].path}: {error}") from None
            result.values[name] += scores.tolist()
            if (details := reward.details(images, texts)) is not None:
                result.details.setdefault(name, []).extend(details)
            if on_scored:
                on_scored(name, len(result.values[name]), len(pictures))
        result.rewards[name] = {
            **ran_with(reward, path),
            "device": str(reward.device),
            "higher_is_better": entry(name).higher_is_better,
        }
        del reward  # the next one may need its memory
    return result


def write_csv(scores: Scores, path: Path) -> Path:
    """Write a row per picture: path, prompt, and a column per reward; as `write_apart`.

    Raises:
        AsyncDiffError: if it cannot be written.
    """
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["path", "prompt", *scores.values])
    for index, picture in enumerate(scores.pictures):
        values = (repr(column[index]) for column in scores.values.values())
        rows.writerow([visible(str(picture.path)), picture.prompt or "", *values])
    return write_apart(path, text.getvalue())
