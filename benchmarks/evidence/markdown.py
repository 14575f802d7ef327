"""The report as Markdown: what to use when, and the table that says why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from asyncdiff_cli.engine.evaluation.cells import digits_of, heading, signed
from asyncdiff_cli.engine.evaluation.table_markup import escape_markdown
from asyncdiff_cli.engine.rewards import COMPOSITE
from benchmarks.evidence.comparison import ADDS, OPEN, TAKES
from benchmarks.evidence.rows import MORE_STEPS, NOTHING, SYNCHRONOUS, TUNING
from benchmarks.reports import table_of

Report = Mapping[str, Any]
FIGURE = "![each row's composite over synchronous sampling of as many evaluations](evidence.png)"
WORDS = {"best": "**{}**", "tied": "<u>{}</u>", "": "{}"}


def to_markdown(report: Report) -> str:
    """The report of all K: its setting, and for each K what to use, and the tables."""
    steps = report["steps"]
    parts = [*_setting(report), *_verdicts(steps), _summary(steps), FIGURE, *_overview(steps)]
    for own in steps:
        calls = f"{own['calls']} denoiser calls a picture"
        parts += [f"## {own['steps']} evaluations, {calls}", *_reading(own)]
        parts += [_table(own), *_category_table(own), *_cost(own)]
        parts += [escape_markdown(note) for note in own["notes"]]
    return "\n\n".join(parts) + "\n"


def _setting(report: Report) -> tuple[str, str]:
    model = report["options"]["model"]
    trained = ", ".join(f"`{name}` {weight:g}" for name, weight in report["trained"].items())
    held_out = ", ".join(f"`{name}`" for name in report["held_out"])
    twice = " and guidance counts twice" if report["branches"] == 2 else ""
    title = (
        f"# Evidence: {report['backbone']}, guidance {report['guidance_scale']:g},"
        f" {report['size']} pixels"
    )
    return title, (
        f"Measured on {report['prompts']} held-out prompts of {report['dataset']}, each row from"
        f" the same noise, in {model['dtype']} on a {model['device']}; tuned on"
        f" {report['tuning_prompts']} training prompts. Equal denoiser"
        f" calls: each evaluation of a picture counts{twice}; those of Heun count too. Differences"
        " are paired, with 95 % intervals, each by itself. The composite is what was trained and"
        f" tuned for ({trained}), in standard deviations of the synchronous pictures; {held_out}"
        " were neither trained on nor tuned for. Of each column **the best** is better than every"
        " other row of equal calls; where the intervals do not tell, those that may be best are"
        " <u>underlined</u>, and where they do not tell any apart none is. What an interval says of"
        f" a choice per picture: it {ADDS} something, it {TAKES} something, or it is {OPEN}. Steps"
        " to match are those of synchronous sampling with the composite of the best row, on the"
        " tuning prompts."
    )


def _verdicts(steps: Sequence[Report]) -> Iterator[str]:
    """A sentence a module: at which K its choice per picture adds something."""
    said = {
        ADDS: "it adds something",
        OPEN: "so many prompts do not tell whether it adds anything",
        TAKES: "it is worse",
    }
    for name in _modules(steps):
        at: dict[str, list[str]] = {}
        for own in steps:
            choice = next(choice for choice in own["choice"] if choice["row"] == name)
            at.setdefault(choice["verdict"], []).append(str(own["steps"]))
        parts = (f"{said[verdict]} at K = {', '.join(where)}" for verdict, where in at.items())
        yield (
            f"What {escape_markdown(name)} chooses for each picture, over the best that does the"
            f" same to all with its solver: {'; '.join(parts)}."
        )


def _modules(steps: Sequence[Report]) -> list[str]:
    return [choice["row"] for choice in steps[0]["choice"]]


def _overview(steps: Sequence[Report]) -> Iterator[str]:
    """The composite of each row at each K, the best in the mean first."""
    if len(steps) < 2:
        return
    found: dict[str, list[Report]] = {}
    for own in steps:
        for row in own["rows"]:
            found.setdefault(row["row"], []).append(row["metrics"][COMPOSITE])
    del found[SYNCHRONOUS]
    ordered = sorted(found.items(), key=lambda row: -fmean(own["difference"] for own in row[1]))
    yield table_of([
        ["composite over synchronous", *(f"K = {own['steps']}" for own in steps)],
        ["---"] * (1 + len(steps)),
        *(
            [escape_markdown(name), *(difference(COMPOSITE, own) for own in at)]
            for name, at in ordered
        ),
    ])  # fmt: skip


def _summary(steps: Sequence[Report]) -> str:
    """What to use at each K, whether a choice per picture adds anything, and steps in its place."""
    modules = _modules(steps)
    beside = [f"{escape_markdown(name)} over its solver's" for name in modules]
    lines = [
        ["K", "use", "over synchronous", "best static policy", *beside, "steps to match"],
        ["---:", *["---"] * (3 + len(modules)), "---:"],
    ]
    for own in steps:
        use = own["ladder"][-1]["use"]
        adds = {choice["row"]: choice for choice in own["choice"]}
        lines.append([
            str(own["steps"]),
            escape_markdown(use),
            difference(COMPOSITE, _row(own, use)["metrics"][COMPOSITE]),
            escape_markdown(own["static"]),
            *(f"{difference(COMPOSITE, adds[name])}: {adds[name]['verdict']}" for name in modules),
            _steps_to_match(own),
        ])  # fmt: skip
    return table_of(lines)


def _steps_to_match(own: Report) -> str:
    """The steps with which synchronous sampling reaches the best row, on the tuning prompts."""
    longer = _named(own, MORE_STEPS)
    if longer is None:
        return ""
    best = max(row["tuned_composite"] for row in own["rows"] if row is not longer)
    reached = longer["tuned_composite"] >= best
    return str(longer["steps"]) if reached else f"more than {longer['steps']}"


def _reading(own: Report) -> Iterator[str]:
    """What to use when, as far as the intervals tell."""
    yield "\n".join(_ladder(own["ladder"]))
    for choice in own["choice"]:
        yield _choice(choice)
    longer = _named(own, MORE_STEPS)
    if longer is not None:
        use = own["ladder"][-1]["use"]
        beside = (
            ""
            if use == SYNCHRONOUS
            else f", where {escape_markdown(use)} has"
            f" {difference(COMPOSITE, _row(own, use)['metrics'][COMPOSITE])}"
        )
        yield (
            f"More steps in their place: {longer['steps']} of synchronous Euler, {longer['calls']}"
            f" calls for {own['calls']}, have"
            f" {difference(COMPOSITE, longer['metrics'][COMPOSITE])} over {own['steps']}{beside}."
        )


def _ladder(steps: Sequence[Report]) -> Iterator[str]:
    before = {NOTHING: "Without tuning", TUNING: "With tuning"}
    said = {ADDS: "better", OPEN: "the interval does not tell", TAKES: "worse"}
    for step in steps:
        needs = before.get(step["needs"], "With a training")
        over = "; ".join(
            f"{difference(COMPOSITE, less)} over {escape_markdown(less['row'])}, "
            f"{said[less['verdict']]}"
            for less in step["over"]
        )
        row = escape_markdown(step["row"])
        yield f"- {needs} the best on the tuning prompts is {row}: {over or 'nothing needs less'}"
    yield f"- So at this K: **{escape_markdown(steps[-1]['use'])}**"


def _choice(choice: Report) -> str:
    said = {
        ADDS: "Its choice per picture adds something.",
        OPEN: "Whether its choice per picture adds anything, so many prompts do not tell.",
    }
    verdict = said.get(choice["verdict"], "Its choice per picture adds nothing: it is worse.")
    row, beside = escape_markdown(choice["row"]), escape_markdown(choice["static"])
    text = (
        f"{row} over its solver's best static policy, {beside}:"
        f" {difference(COMPOSITE, choice)} of the composite. {verdict}"
    )
    parts = choice["categories"]
    if not parts:
        return text
    adds = [name for name, own in parts.items() if own["verdict"] == ADDS]
    return f"{text} By category it adds something in {', '.join(adds) or 'none'} of {len(parts)}."


def _table(own: Report) -> str:
    first = own["rows"][0]["metrics"]
    columns = ["row", "what", "needs", "calls", "mean D", "composite", "over the best static"]
    columns += [heading(name) for name in first if name != COMPOSITE]
    lines = [columns, ["---", "---", "---", "---:", "---:", *["---"] * (len(columns) - 5)]]
    for row in own["rows"]:
        metrics = row["metrics"]
        static = metrics[COMPOSITE]["static"]
        deviation = row["deviation"]
        mean = sum(deviation) / len(deviation) if deviation else 0.0
        lines.append([
            escape_markdown(row["row"]),
            f"{escape_markdown(row['said'])}{' (end of what was tried)' if row['at_end'] else ''}",
            _needs(row),
            str(row["calls"]),
            signed(mean, 3),
            _cell(row, COMPOSITE),
            "" if row["row"] == own["static"] else difference(COMPOSITE, static),
            *(_cell(row, name) for name in metrics if name != COMPOSITE),
        ])  # fmt: skip
    return table_of(lines)


def _needs(row: Report) -> str:
    if row["needs"] == TUNING and row["tuned_calls"]:
        return f"{TUNING}, {row['tuned_calls']:,} calls"
    return row["needs"]


def _cell(row: Report, metric: str) -> str:
    """The mean of synchronous sampling, and of others what they differ by."""
    own = row["metrics"][metric]
    if row["row"] == SYNCHRONOUS:
        digits = digits_of(metric)
        text = f"{round(own['mean'], digits) + 0.0:.{digits}f}"  # a zero without its minus
        return WORDS[own["mark"]].format(text)
    return difference(metric, own, WORDS[own["mark"]])


def difference(metric: str, own: Report, style: str = "{}") -> str:
    """A difference with its interval; one picture has none."""
    digits = digits_of(metric)
    text = style.format(signed(own["difference"], digits))
    if own["n"] == 1:
        return text
    return f"{text} [{signed(own['low'], digits)}, {signed(own['high'], digits)}]"


def _category_table(own: Report) -> list[str]:
    names = [*own["rows"][0]["categories"]]
    if not names:
        return []
    counts = {n: own["rows"][0]["categories"][n][COMPOSITE]["n"] for n in names}
    lines = [["composite over synchronous", *(f"{name} ({counts[name]})" for name in names)]]
    lines.append(["---"] * (1 + len(names)))
    for row in own["rows"]:
        if row["row"] != SYNCHRONOUS:
            parts = row["categories"]
            cells = (difference(COMPOSITE, parts[name][COMPOSITE]) for name in names)
            lines.append([escape_markdown(row["row"]), *cells])
    return [table_of(lines)]


def _cost(own: Report) -> Iterator[str]:
    cost = own["cost"]
    tuning, measuring = cost["tuning"], cost["held-out"]
    yield (
        f"Drawn: {tuning['pictures']:,} pictures to tune and match ({tuning['calls']:,} calls),"
        f" {measuring['pictures']:,} to measure ({measuring['calls']:,} calls), in"
        f" {(tuning['seconds'] + measuring['seconds']) / 60:.0f} minutes; at most"
        f" {cost['schedules']['calls']:,} calls to calibrate, distill and average."
    )


def _row(own: Report, name: str) -> Report:
    return next(row for row in own["rows"] if row["row"] == name)


def _named(own: Report, name: str) -> Report | None:
    return next((row for row in own["rows"] if row["row"] == name), None)
