"""The page of the public API, made from its signatures and docstrings.

python -m tests.helpers.api > docs/api.md
"""

import inspect

from asyncdiff_cli import engine

HEAD = """\
# The Python API

What `from asyncdiff_cli.engine import …` gives; all else may change. Each docstring has the
arguments with their shapes and ranges, what is raised, and an example. D is a deviation, γ
(`gamma`) what it is multiplied by, and t* the time that the denoiser is told. Bad input raises
`InputError`, a `ValueError` whose message is one line.
"""
GROUPS = {
    "Draw": "load_backbone backbone_from_pipeline sample SampleResult Backbone make_scheduler",
    "Inside a pipeline of diffusers": "attach Trace AsyncFlowMatchEulerScheduler",
    "Policies": "Synchronous FixedDeviation ScheduledDeviation SpectralDeviation LearnedDeviation"
    " DetailDaemon VelocityScale TimeShift Combined ScaledSchedule EpsilonScaling NoiseShift"
    " ModelDetailBoost SamplerDetailBoost EachPolicy parse_policy policy_from_dict Policy"
    " StepState",
    "Schedules": "Schedule calibrated_schedule transfer",
    "Timestep prediction modules": "TimestepPredictionModule load_tpm",
    "Rewards": "score load_reward composite Reward",
    "Add a backbone": "ADAPTERS REGISTRY Adapter BackboneEntry TextConditions",
    "Errors": "AsyncDiffError InputError AsyncDiffWarning",
}
TABLES = {
    "ADAPTERS": "The adapter of each class of pipelines.",
    "REGISTRY": "What is known of each backbone, by its name.",
}
"""What the names say that have no docstring of their own."""
NOT_CALLED = {*TABLES, "Backbone", "Policy", "Reward", "Trace"}


def signature(name: str) -> str:
    """A name with its arguments and defaults, without annotations."""
    public = getattr(engine, name)
    if name in NOT_CALLED or (inspect.isclass(public) and issubclass(public, Exception)):
        return name
    inherited = set()
    if inspect.isclass(public) and public.__mro__[1].__module__.startswith("diffusers"):
        inherited = set(inspect.signature(public.__mro__[1]).parameters)
    given = inspect.signature(public)
    own = [p.replace(annotation=p.empty) for k, p in given.parameters.items() if k not in inherited]
    text = str(given.replace(parameters=own, return_annotation=given.empty))
    return name + (text.replace("(*, ", "(…, ") if inherited else text)


def line(name: str) -> str:
    text = TABLES.get(name) or inspect.getdoc(getattr(engine, name)) or ""
    paragraph, _, _ = text.partition("\n\n")
    return f"- `{signature(name)}`: {' '.join(paragraph.split())}"


def page() -> str:
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts += [f"## {title}\n", *map(line, names.split()), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
