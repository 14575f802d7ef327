"""Asynchronous timestep conditioning for text-to-image flow models."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The scheduler, and its base, where diffusers looks for both: a saved pipeline names this."""
    if name == "AsyncFlowMatchEulerScheduler":
        from asyncdiff_cli.engine.sampling.async_scheduler import AsyncFlowMatchEulerScheduler

        return AsyncFlowMatchEulerScheduler
    if name == "SchedulerMixin":
        from diffusers import SchedulerMixin

        return SchedulerMixin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
