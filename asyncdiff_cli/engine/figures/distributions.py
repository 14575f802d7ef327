"""The deviations of stores and runs, as the paper's Figures 3 and 4 show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from asyncdiff_cli.engine.errors import InputError
from asyncdiff_cli.engine.evaluation.store import Store
from asyncdiff_cli.engine.evaluation.store_settings import SETTINGS
from asyncdiff_cli.engine.evaluation.summary import Result, Summary, summarize
from asyncdiff_cli.engine.figures.formats import check_suffix
from asyncdiff_cli.engine.policies.table import CHOOSING

RUN_EVALUATION = "evaluation"
"""The directory of a run that holds its module's evaluation."""


def is_store(path: Path) -> bool:
    """Whether a directory holds an evaluation, and not a run."""
    return (path / SETTINGS).is_file()


def distributions(stores: Sequence[tuple[str, Store]], policy: str | None) -> dict[str, Result]:
    """The results whose deviations are shown, by the label of their column.

    Args:
        stores: with their names, which are in the labels if there are several.
        policy: a policy's label; default all that choose by the image, at γ = 1.

    Raises:
        InputError: if there is none.
    """
    by_label: dict[str, Result] = {}
    for name, store in stores:
        summary = summarize(store, intervals=False)
        several_steps = len({r.setting.steps for r in summary.results}) > 1
        for result in summary.results:
            setting = result.setting
            chosen = setting.policy.partition(":")[0] in CHOOSING
            if setting.gamma != 1 or not (setting.policy == policy if policy else chosen):
                continue
            label = [name] if len(stores) > 1 else []
            if len(stores) == 1 or sum(r.setting.gamma == 1 for r in summary.results) > 2:
                label.append(_short(setting.policy, summary))
            if several_steps:
                label.append(f"{setting.steps} steps")
            by_label[", ".join(label)] = result
    if not by_label:
        names = ", ".join(str(store.path) for _, store in stores)
        raise InputError(
            f"{names}: no deviations of {policy or 'a policy that chooses by the image'} at γ = 1"
        )
    return by_label


def _short(policy: str, summary: Summary) -> str:
    """A policy's name, with what is behind its colon if there is another of that name."""
    name = policy.partition(":")[0]
    policies = {r.setting.policy for r in summary.results}
    alike = [other for other in policies if other.partition(":")[0] == name]
    return policy if len(alike) > 1 else name


def told_apart(paths: Sequence[Path]) -> list[str]:
    """A label per directory: its name, with as many of those above as no other one shares.

    Raises:
        InputError: for a directory that is there twice.
    """
    places = [path.resolve().parts for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"{path} is given twice")
    return [next("/".join(end) for end in _ends(place) if _alone(end, places)) for place in places]


def _ends(parts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (parts[-count:] for count in range(1, len(parts) + 1))


def _alone(end: Sequence[str], every: Sequence[Sequence[str]]) -> bool:
    return sum(parts[-len(end) :] == end for parts in every) == 1


def write_histogram(runs: Mapping[str, Result], path: Path) -> list[Path]:
    """The chart at `path` and as .svg, and its numbers as .csv; the files' paths.

    Raises:
        InputError: for a suffix that is none of a figure.
        AsyncDiffError: if one cannot be written.
    """
    check_suffix(path)
    from asyncdiff_cli.engine.figures.histogram import histogram_csv, histogram_figure
    from asyncdiff_cli.engine.figures.style import save_chart

    return save_chart(histogram_figure(runs), path, histogram_csv(runs), ".csv")
