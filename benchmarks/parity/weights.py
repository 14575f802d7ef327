"""Synthetic full-size weights for the scorer parity fixtures.

The real reward-model checkpoints (ImageReward, HPSv2, PickScore, CLIP) cannot be
downloaded everywhere, but a network can be checked without them: both sides fill
the same architecture with the same made-up numbers and must then give the same
scores.  ``synthetic_state_dict`` makes those numbers from nothing but each
parameter's NAME (in the *original checkpoint's* key format), its shape and one
integer seed.  No framework RNG is involved, the order of the keys does not
matter, and a subset of the keys gives the same values as the full set.

How one value is made
---------------------
1. ``h = sha256(f"{seed}:{name}")``; its first 8 bytes, little-endian, seed
   ``numpy.random.PCG64``.
2. ``PCG64.random_raw`` gives 64-bit words; each is split into two little-endian
   32-bit words and the top 24 bits of each become ``u = k * 2**-24`` in [0, 1),
   which float32 holds exactly.  (Raw bit streams are stable across numpy
   releases; ``Generator.standard_normal`` would not be guaranteed to be.)
3. ``value = mean + std * sqrt(3) * (2*u - 1)`` in float32: uniform with that mean and
   standard deviation.  Every step is a single IEEE float32 operation, so the
   result is bit-identical on every machine.

``mean`` and ``std`` depend on the kind of parameter (first rule that fits):

=====================================================  =====  ==========================
kind                                                   mean   std
=====================================================  =====  ==========================
``*position_ids`` (int64 buffer in old checkpoints)    the integers 0, 1, 2, ...
``*logit_scale``                                       the constant ln(100), as trained
1-D ``*.weight`` (LayerNorm gains)                     1      0.1
1-D ``*bias`` (LayerNorm, linear, in_proj)             0      0.05
4-D (patch-embedding convolution)                      0      0.04 / sqrt(fan_in)
token / position / class embeddings                    0      0.02
bare ``proj`` / ``text_projection`` (used as x @ P)    0      1 / sqrt(shape[0])
every other matrix (linear weight, out x in)           0      1 / sqrt(shape[1])
=====================================================  =====  ==========================

The embeddings are small on purpose (as in trained models): the first LayerNorm
then sees a variance around 1e-3, so a wrong LayerNorm epsilon shows in the score.
"""

import hashlib
import math

import numpy as np
import torch

_EMBEDDING_WORDS = ("embedding", "pos_embed", "cls_token")


def _unit_uniform(name: str, count: int, seed: int) -> np.ndarray:
    """`count` float32 values in [0, 1), a pure function of (name, seed)."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    bits = np.random.PCG64(int.from_bytes(digest[:8], "little"))
    words = bits.random_raw((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def _mean_std(name: str, shape: tuple) -> tuple:
    if len(shape) == 1 and name.endswith(".weight"):
        return 1.0, 0.1
    if len(shape) == 1 and name.endswith("bias"):
        return 0.0, 0.05
    if len(shape) == 4:
        return 0.0, 0.04 / math.sqrt(shape[1] * shape[2] * shape[3])
    if any(word in name for word in _EMBEDDING_WORDS):
        return 0.0, 0.02
    if name.endswith("proj") or name.endswith("text_projection"):
        return 0.0, 1.0 / math.sqrt(shape[0])
    if len(shape) == 2:
        return 0.0, 1.0 / math.sqrt(shape[1])
    raise ValueError(f"no rule for parameter {name!r} of shape {shape}")


def synthetic_tensor(name: str, shape: tuple, seed: int) -> torch.Tensor:
    """The made-up value of one parameter (float32; int64 for ``position_ids``)."""
    shape = tuple(int(n) for n in shape)
    if name.endswith("position_ids"):
        return torch.arange(shape[-1], dtype=torch.int64).expand(shape).clone()
    if name.endswith("logit_scale"):
        return torch.full(shape, math.log(100.0), dtype=torch.float32)
    mean, std = _mean_std(name, shape)
    count = int(np.prod(shape, dtype=np.int64))
    values = _unit_uniform(name, count, seed)
    values *= np.float32(2.0)
    values -= np.float32(1.0)
    values *= np.float32(std * math.sqrt(3.0))
    if mean:
        values += np.float32(mean)
    return torch.from_numpy(values.reshape(shape))


def synthetic_state_dict(shapes: dict, seed: int) -> dict:
    """``{name: shape}`` -> ``{name: tensor}``, the same on every machine.

    shapes: parameter names in the original checkpoint's key format, each with its
        shape (tuple or list; ``[]`` for a scalar).  The field ``shapes`` of each scorer
        in ``scores_tiny.json`` and ``scores_full.json`` beside this file holds them.
    seed: any integer; the fixtures name theirs.
    """
    return {name: synthetic_tensor(name, tuple(shape), seed) for name, shape in shapes.items()}


def fingerprint(state_dict: dict) -> str:
    """sha256 over names and bytes in sorted order: equal means bit-identical weights."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        array = state_dict[name].detach().cpu().contiguous().numpy()
        digest.update(f"{name}:{array.dtype.str}:{list(array.shape)}".encode())
        digest.update(memoryview(array).cast("B") if array.size else b"")
    return digest.hexdigest()
