"""Threads: as many as asked for, the same result for any number, and errors that come through."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from manifoldzoo.manifolds import _threads
from manifoldzoo.manifolds._let import LetSettings, fit_in_row_space, row_space
from manifoldzoo.manifolds._threads import in_threads, n_processors, n_threads


@pytest.mark.parametrize(("asked", "there", "got"), [("1", 8, 1), ("3", 8, 3), ("16", 8, 8), ("", 8, 8), ("x", 8, 8)])
def test_as_many_as_asked_for_and_there_are(monkeypatch, asked, there, got):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(_threads, "n_processors", lambda: there)
    assert n_threads() == got


def test_there_is_a_processor():
    assert n_processors() >= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_every_piece_is_worked_on_once(monkeypatch, threads):
    monkeypatch.setattr(_threads, "n_threads", lambda: threads)
    seen, names = [], set()

    def work(piece):
        seen.append(piece)
        names.add(threading.current_thread().name)

    in_threads(work, range(50))
    assert sorted(seen) == list(range(50))
    assert (threading.main_thread().name in names) == (threads == 1)


def test_an_error_comes_through(monkeypatch):
    monkeypatch.setattr(_threads, "n_threads", lambda: 2)

    def work(piece):
        if piece == 3:
            raise ValueError("third")

    with pytest.raises(ValueError, match="third"):
        in_threads(work, range(6))


def test_heads_are_the_same_to_the_bit(monkeypatch):
    rng = np.random.default_rng(0)
    features, place = rng.standard_normal((30, 50)), rng.integers(0, 5, 30)
    distances = np.abs(place[:, None] - place).astype(float)
    targets = np.stack([distances[np.ix_(order, order)] for order in (rng.permutation(30) for _ in range(7))])
    settings = LetSettings(n_components=3, n_steps=20)
    fits = []
    for threads in (1, 3):
        monkeypatch.setattr(_threads, "n_threads", lambda threads=threads: threads)
        space = row_space(features, settings, rng=np.random.default_rng(1))
        rngs = np.random.default_rng(2).spawn(7)
        fits.append(fit_in_row_space(space, targets, settings, rngs=rngs, batch_size=2))
    assert fits[0].weights.tobytes() == fits[1].weights.tobytes()
    assert fits[0].beta.tobytes() == fits[1].beta.tobytes()
