"""A transformer that is told its own time for each image, compiled or not."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.errors import AsyncDiffError, InputError

Call = Callable[..., Any]
OnCall = Callable[[tuple[Any, ...], Mapping[str, Any]], None]

AROUND = "_asyncdiff_around"
"""The attribute of a module that makes its calls while it is watched."""


class ConditioningTime:
    """Lets a transformer see a time of its own for each image, while entered.

    The time is handed over where the transformer embeds it, in fp32. Before that, FLUX casts its
    timestep to the dtype of the latents, and in bf16 the times above 0.5 are 0.004 apart.

    Args:
        transformer: the model.
        embedding: the path in it of the module whose first argument is the timestep [n].
        model_time: t* in the units that this module takes.
        projection: the path of a module that expects what it is given in the timestep's dtype.
        on_call: told of the arguments of each call of the transformer.

    Raises:
        InputError: for a transformer without such modules; in a call, for an `embedding` that is
            given something else first.
    """

    def __init__(
        self,
        transformer: Any,
        embedding: str = "time_text_embed",
        model_time: Callable[[Tensor], Tensor] = desync.in_timesteps,
        projection: str | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        self._calls: list[tuple[torch.nn.Module, Call]] = [
            (transformer, self._transform),
            (_submodule(transformer, embedding), self._embed),
        ]
        if projection is not None:
            self._calls.append((_submodule(transformer, projection), self._project))
        self._model_time, self._on_call = model_time, on_call
        self._place = f"{embedding} of a {type(transformer).__name__}"
        self.clear()

    def set(self, sigma: Tensor, cond_sigma: Tensor) -> None:
        """Condition the next evaluations on t* = `cond_sigma` [B] at the grid's t = `sigma` []."""
        # one layout for all: a compiled model is compiled anew for another
        self._times: tuple[Tensor, Tensor] | None = (sigma, cond_sigma.contiguous())

    def clear(self) -> None:
        """Leave the timestep alone."""
        self._times = None

    def __enter__(self) -> ConditioningTime:
        with ExitStack() as stack:
            for module, around in self._calls:
                stack.enter_context(_around_calls(module, around))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()
        self.clear()

    def _transform(self, call: Call, *args: Any, **kwargs: Any) -> Any:
        """See to it that a call of the transformer takes the time that is set."""
        if self._on_call is not None:
            self._on_call(args, kwargs)
        self._is_told = self._times is None
        result = call(*args, **kwargs)
        if not self._is_told:
            raise AsyncDiffError(
                "the transformer ran without its conditioning time: what was compiled or traced"
                " before does not look at it; compile inside the block, or only its repeated"
                " blocks (pipe.transformer.compile_repeated_blocks())"
            )
        return result

    def _embed(self, call: Call, timestep: Tensor, *rest: Any, **kwargs: Any) -> Any:
        if self._times is None:
            return call(timestep, *rest, **kwargs)
        if timestep.ndim != 1:
            raise InputError(
                f"{self._place} is given a tensor of {timestep.ndim} axes first, which is no time:"
                " an adapter's `time_embedding` is the path of the module whose first argument is"
                " the timestep [n]"
            )
        self._dtype, self._is_told = timestep.dtype, True
        told = desync.model_timestep(timestep, *self._times, self._model_time)
        return call(told, *rest, **kwargs)

    def _project(self, call: Call, embedded: Tensor, *rest: Any, **kwargs: Any) -> Any:
        if self._times is not None:
            embedded = embedded.to(self._dtype)
        return call(embedded, *rest, **kwargs)


class ConditioningTimes:
    """Lets several networks see the same times, while entered."""

    def __init__(self, times: Sequence[ConditioningTime]) -> None:
        self._each = times

    def set(self, sigma: Tensor, cond_sigma: Tensor) -> None:
        """Condition the next evaluations, as `ConditioningTime.set`."""
        for time in self._each:
            time.set(sigma, cond_sigma)

    def clear(self) -> None:
        """Leave the timestep alone."""
        for time in self._each:
            time.clear()

    def __enter__(self) -> ConditioningTimes:
        with ExitStack() as stack:
            for time in self._each:
                stack.enter_context(time)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()


def _submodule(transformer: Any, path: str) -> torch.nn.Module:
    try:
        return transformer.get_submodule(path)
    except AttributeError:
        raise InputError(
            f"a {type(transformer).__name__} has no {path}, where its time would be set: give the"
            " pipeline the transformer itself"
        ) from None


@contextmanager
def _around_calls(module: torch.nn.Module, around: Call) -> Iterator[None]:
    """Have `around(call, *arguments)` make a module's calls within the block.

    By a class of its own, as torch's `fully_shard` and `parametrize` do. Unlike a hook it is one of
    the things that a compiled model guards, so that one which was compiled before is compiled anew;
    and it stays on when accelerate replaces `forward`.
    """
    base: Any = type(module)
    if AROUND in vars(module):
        raise InputError("this transformer is conditioned already: leave the other block first")
    object.__setattr__(module, AROUND, around)
    module.__class__ = _observed(base)
    try:
        yield
    finally:
        module.__class__ = base
        object.__delattr__(module, AROUND)


@functools.cache
def _observed(base: Any) -> type:
    """A module's class whose calls are made by its attribute `AROUND`.

    The same for all blocks, so that what is compiled in one serves the next. A copy of the module
    is of the class itself.
    """

    class Observed(base):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self._asyncdiff_around(super().__call__, *args, **kwargs)

        def __reduce_ex__(self, protocol: Any) -> Any:
            self.__class__ = base
            try:
                make, *rest = self.__reduce_ex__(protocol)
            finally:
                self.__class__ = Observed
            if len(rest) > 1:  # the second is the state
                rest[1] = {name: value for name, value in rest[1].items() if name != AROUND}
            return make, *rest

    Observed.__name__, Observed.__qualname__ = base.__name__, base.__qualname__
    Observed.__module__ = base.__module__
    return Observed
