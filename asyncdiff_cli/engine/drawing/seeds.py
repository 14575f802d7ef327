"""Random numbers that depend on seeds and places alone."""

from __future__ import annotations

import numpy as np

NOISE, DRAWS, STEPS, EVALUATION, SCHEDULE = range(5)
"""Streams of random numbers of one seed that have nothing to do with one another."""


def generator(*key: int) -> np.random.Generator:
    """The generator of a seed, a stream and the places in it."""
    return np.random.default_rng(np.random.SeedSequence(key))


def noise_seed(*key: int) -> int:
    """A seed for torch, in [0, 2^63)."""
    return int(generator(*key).integers(2**63, dtype=np.uint64))
