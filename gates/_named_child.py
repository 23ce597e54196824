"""Chance by name: draws that no other draw can move."""

from __future__ import annotations

import hashlib

import numpy as np


def named_child(rng: np.random.Generator, name: str) -> np.random.Generator:
    """Derive the generator of one named draw.

    Parameters
    ----------
    rng
        Its seed is read; neither its state nor the number of its children changes.
    name
        Of what is drawn.

    Returns
    -------
    Generator
        The same for the same seed and name, whatever else is drawn beside it or was before.

    Notes
    -----
    The first 128 bits of the SHA-256 of the name are appended to the spawn key of the seed; our choice.
    """
    seed = rng.bit_generator.seed_seq
    if not isinstance(seed, np.random.SeedSequence):
        raise TypeError(f"the generator was made from {type(seed).__name__}, expected a SeedSequence")
    words = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u4")
    key = (*seed.spawn_key, *(int(word) for word in words))
    return np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=key))
