"""What a computation holds in memory at most, found by running it on tensors without data.

`FakeTensorMode` runs the real modules and allocates nothing; `LiveBytes` adds up the storages that
are alive at each operation. So a model of any size is traced in seconds, on any machine.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from asyncdiff_cli.engine import desync
from asyncdiff_cli.engine.backbones.adapters import Adapter, Denoiser, Guidance, TextConditions
from asyncdiff_cli.engine.backbones.adapters.decoding import SLICE
from asyncdiff_cli.engine.checks import check_size

Returned = TypeVar("Returned")


class Peak(NamedTuple):
    """Bytes that were alive at most, beside the weights."""

    plain: int
    dequantized: int
    """The same if all linear layers were held in fewer bits: the kernels of bitsandbytes and
    torchao make the weight of a layer in the dtype that is computed in, for as long as it runs."""


@dataclass(frozen=True)
class Work:
    """What is drawn at once."""

    batch: int
    """Images."""
    height: int
    """Pixels, as is the width."""
    width: int
    guidance: float
    """Its scale, as in `sample`: for FLUX that of the embedded guidance and of the true one."""
    negative: bool = False
    """Whether negative prompts are given."""
    tokens: int | None = None
    """Tokens of the large text encoder; None for the pipeline's default."""


class LiveBytes(TorchDispatchMode):
    """Counts, while entered, the bytes of the storages that operations create, while they live.

    What was there before, such as weights, is not counted. Of what a kernel takes and gives back
    within one operation only a convolution's is. Both libraries convolve in a layout of their own:
    oneDNN copies an input in torch's into it, and cuDNN, whose tensor cores take channels last,
    copies its result back as well.

    Attributes:
        live: bytes that are alive now.
        peak: the most that were alive since the last `measure` began.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = Peak(0, 0)
        self._dequantized = 0
        self._seen: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):  # one that is not known was there before
            self._seen.setdefault(tensor.untyped_storage(), None)
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._count(tensor.untyped_storage())
        if func is torch.ops.aten.convolution.default:
            self._raise_peak(args[0].nbytes + (result.nbytes if result.is_cuda else 0))
        return result

    def measure(
        self, module: torch.nn.Module, call: Callable[[], Returned]
    ) -> tuple[Returned, Peak]:
        """The result of a call that runs `module`, and the most that was alive meanwhile."""
        self.peak = Peak(self.live, self.live)
        linear = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
        with ExitStack() as hooks:
            for part in linear:
                hooks.callback(part.register_forward_pre_hook(self._dequantize).remove)
                hooks.callback(part.register_forward_hook(self._drop).remove)
            result = call()
        return result, self.peak

    def _dequantize(self, module: Any, args: Any) -> None:
        self._dequantized = module.weight.nbytes
        self._raise_peak()

    def _drop(self, module: Any, args: Any, output: Any) -> None:
        self._dequantized = 0

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = None
        weakref.finalize(storage, self._free, size)
        self.live += size
        self._raise_peak()

    def _raise_peak(self, scratch: int = 0) -> None:
        live = self.live + scratch
        plain, dequantized = self.peak
        self.peak = Peak(max(plain, live), max(dequantized, live + self._dequantized))

    def _free(self, size: int) -> None:
        self.live -= size


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@contextmanager
def without_data(device: torch.device) -> Iterator[None]:
    """Let new tensors hold no data, and those on `device` behave as there, while entered.

    The device need not exist: a CUDA kernel's outputs, and which kernel is chosen, are known
    without a GPU. The exception is attention, for which torch asks the GPU; see `FusedAttention`.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(FakeTensorMode())
        stack.enter_context(device)
        if device.type == "cuda":
            stack.enter_context(FusedAttention())
        yield


class FusedAttention(TorchFunctionMode):
    """Lets attention allocate what CUDA's fused kernels do, while entered.

    Without a GPU to ask, torch would take the fallback, which holds the scores of all pairs of
    tokens. The outputs of the flash, memory-efficient and cuDNN kernels are of the same size.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        call = _fused_attention if func is F.scaled_dot_product_attention else func
        return call(*args, **(kwargs or {}))


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The `scaled_dot_product_attention` of the kernel that takes any mask and head size."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    if attn_mask is not None:
        bias = attn_mask.to(query.dtype)  # a mask of booleans becomes one of numbers to add
        attn_mask = bias.expand(*query.shape[:-1], key.shape[-2])
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, False, dropout_p, is_causal, scale=scale
    )[0]


@torch.no_grad()
def trace(adapter: Adapter, work: Work) -> dict[str, Peak]:
    """The most that each model of a pipeline holds beside its weights, by component.

    It runs each text encoder, one evaluation of the denoiser, and one decoding, as `sample` does.
    The pipeline may be one without data or a real one.

    Raises:
        InputError: for a size that it does not draw.
    """
    pipe, peaks, size = adapter.pipe, {}, (work.height, work.width)
    check_size(*size, adapter.size_multiple, adapter.largest_size)
    for name, encoder in pipe.components.items():
        if name.startswith("text_encoder") and encoder is not None:
            with LiveBytes() as live:
                peaks[name] = live.measure(encoder, _encoding(adapter, encoder, work))[1]
    with LiveBytes() as live:
        velocity, latents, timestep = _denoising(adapter, work)
        _, peaks["transformer"] = live.measure(
            pipe.transformer, lambda: velocity(latents, timestep)
        )
        _, peaks["vae"] = live.measure(
            pipe.vae, lambda: adapter.decode_latents(latents[:SLICE], *size)
        )
    return peaks


def _encoding(adapter: Adapter, encoder: Any, work: Work) -> Callable[[], Any]:
    """A call of a text encoder, as the pipelines make it: all but T5 hand out every layer."""
    device, kind = adapter.pipe._execution_device, type(encoder).__name__
    is_clip, is_t5 = kind.startswith("CLIP"), kind.startswith("T5")
    own = encoder.config.max_position_embeddings if is_clip else None
    length = own or adapter.text_tokens(work.tokens)
    ids = torch.zeros(work.batch, length, dtype=torch.int64, device=device)
    options: dict[str, Any] = {} if is_t5 else {"output_hidden_states": True}
    if not is_t5 and not is_clip:
        options["attention_mask"] = torch.ones_like(ids)
    return lambda: encoder(input_ids=ids, **options)


def _denoising(adapter: Adapter, work: Work) -> tuple[Denoiser, Tensor, Tensor]:
    """The velocity field that `sample` would integrate, its noise, and a timestep."""
    pipe, size = adapter.pipe, (work.height, work.width)
    guidance = Guidance(work.guidance, work.guidance)
    text = empty_conditions(adapter, work, adapter.does_cfg(guidance, work.negative))
    latents = adapter.prepare_latents((work.batch, *size), text.prompt_embeds.dtype, None, None)
    timestep = torch.full([], float(desync.TIMESTEPS), device=pipe._execution_device)
    return adapter.denoiser(text, guidance, *size), latents, timestep


def empty_conditions(adapter: Adapter, work: Work, do_cfg: bool) -> TextConditions:
    """What encoding prompts of the full length gives, zeros in its place."""
    pipe, channels = adapter.pipe, adapter.channels
    tokens = adapter.encoded_tokens(work.tokens)

    def zeros(*shape: int) -> Tensor:
        device, dtype = pipe._execution_device, pipe.transformer.dtype
        return torch.zeros(work.batch, *shape, device=device, dtype=dtype)

    def pooled() -> Tensor | None:
        return zeros(channels["pooled_channels"]) if adapter.has_pooled else None

    text = TextConditions(zeros(tokens, channels["prompt_channels"]), pooled())
    if not do_cfg:
        return text
    return replace(
        text,
        negative_prompt_embeds=zeros(tokens, channels["prompt_channels"]),
        negative_pooled_prompt_embeds=pooled(),
    )
