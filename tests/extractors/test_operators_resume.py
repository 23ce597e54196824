from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_checkpoint import PlainCheckpoint
from tiny_models import GENES, tiny_cells

from manifoldzoo.cards._errors import ZooWarning
from manifoldzoo.extractors.operators import _attention, _resume
from manifoldzoo.extractors.operators._attention import STATE_FILE, AttentionMean, attention_mean
from manifoldzoo.extractors.operators._resume import UnfinishedState

MODEL = PlainCheckpoint(vocabulary=GENES, genes=GENES)
CELLS = tiny_cells("log1p", 60, len(GENES))


class Stop(Exception):
    """An interruption that is no other error."""


def run(folder: Path | None = None, **changes: Any) -> AttentionMean:
    settings = {"checkpoint": MODEL, "cells": CELLS, "genes": GENES, "resume": folder, "batch_size": 3} | changes
    return attention_mean(**settings)


def stopping_after(n_cells: int) -> Any:
    done = 0

    def progress(n: int) -> None:
        nonlocal done
        done += n
        if done >= n_cells:
            raise Stop

    return progress


def same_bytes(a: AttentionMean, b: AttentionMean) -> bool:
    return a.layers.tobytes() == b.layers.tobytes() and a.support.tobytes() == b.support.tobytes()


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    # some batches each, so that an interruption can come in the middle of one
    monkeypatch.setattr(_attention, "_GROUP_FLOATS", (2000, 2000))


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("n_cells", [1, 20, 45])
def test_goes_on_after_an_interruption_to_the_same_bytes(n_cells: int, per_head: bool, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path / "work", per_head=per_head, progress=stopping_after(n_cells))
    calls: list[int] = []
    resumed = run(tmp_path / "work", per_head=per_head, progress=calls.append)
    assert same_bytes(resumed, run(per_head=per_head))
    assert sum(calls) == CELLS.shape[0]
    assert calls[0] >= n_cells, "the work was done again"


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("per_head", [False, True])
def test_an_error_in_any_layer_of_any_batch_loses_nothing_and_adds_nothing_twice(
    per_head: bool, n_threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attention, "use_threads", lambda: n_threads)
    want, plainly, rng, n_failed = run(per_head=per_head), PlainCheckpoint.attention, np.random.default_rng(0), 0

    def failing(self: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        for maps in plainly(self, *arguments, **options):
            if rng.random() < 0.06:
                raise MemoryError
            yield maps

    monkeypatch.setattr(PlainCheckpoint, "attention", failing)
    while True:
        try:
            resumed = run(tmp_path, per_head=per_head)
            break
        except MemoryError:
            n_failed += 1
    assert n_failed > 3
    assert same_bytes(resumed, want)


# one that comes while Python frees an object is printed and lost, and then it interrupts nothing
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_moment_lose_nothing_and_add_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attention, "use_threads", lambda: 2)
    want, rng, n_stopped = run(per_head=True), np.random.default_rng(0), 0

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    def attempt(folder: Path) -> AttentionMean | None:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, float(rng.uniform(0.001, 0.03 + n_stopped / 1000)))
                return run(folder, per_head=True)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            return None

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(50):
            while (resumed := attempt(tmp_path / str(number))) is None:
                n_stopped += 1
            assert same_bytes(resumed, want)
            if n_stopped >= 12:
                break
    finally:
        signal.signal(signal.SIGALRM, before)
    assert n_stopped >= 12


SCRIPT = """
import os, signal, sys
from pathlib import Path
from plain_checkpoint import PlainCheckpoint
from tiny_models import GENES, tiny_cells
from manifoldzoo.extractors.operators import _attention, _resume

_attention._GROUP_FLOATS = (2000, 2000)
_resume.SAVE_SECONDS = _resume._SHARE = 0
done = 0

def progress(n):
    global done
    done += n
    if done >= 30:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))

_attention.attention_mean(
    PlainCheckpoint(vocabulary=GENES, genes=GENES), tiny_cells("log1p", 60, len(GENES)), GENES,
    per_head=True, batch_size=3, resume=Path(sys.argv[2]), progress=progress,
)
"""


@pytest.mark.parametrize("kind", ["SIGINT", "SIGKILL"])
def test_a_killed_process_is_taken_over_by_another(kind: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(tmp_path)], env=environment, cwd=tmp_path, capture_output=True
    )
    assert killed.returncode in (-getattr(signal, kind), 1), killed.stderr
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]
    calls: list[int] = []
    resumed = run(tmp_path, per_head=True, progress=calls.append)
    assert calls[0] >= 30
    assert same_bytes(resumed, run(per_head=True))


def test_finished_work_that_took_long_enough_is_kept_for_the_caller_to_remove(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "quick")
    assert not (tmp_path / "quick").exists()
    monkeypatch.setattr(_resume, "SAVE_SECONDS", 0)
    monkeypatch.setattr(_resume, "_SHARE", 0)
    first = run(tmp_path / "slow")
    monkeypatch.setattr(PlainCheckpoint, "attention", lambda *_, **__: pytest.fail("the model was run"))
    assert same_bytes(run(tmp_path / "slow"), first)


def test_regular_saves_keep_their_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, saves = [100.0], []
    monkeypatch.setattr(_resume.time, "monotonic", lambda: now[0])
    state = UnfinishedState(tmp_path / "x", {}, {"a": np.ones(3)})
    write = state._write
    monkeypatch.setattr(
        state, "_write", lambda stream: (write(stream), saves.append(now[0]), now.__setitem__(0, now[0] + 4))
    )
    for _ in range(300):
        state.save_if_due()
        now[0] += 1
    # half a minute at first, and then twenty times the four seconds that a save takes
    assert saves == [130.0, 214.0, 298.0, 382.0]


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("checkpoint", {"checkpoint": replace(MODEL, seed=1)}),
        ("cells", {"cells": tiny_cells("log1p", 60, len(GENES), seed=1)}),
        ("genes", {"genes": GENES[::-1]}),
        ("batch_size", {"batch_size": 2}),
        ("weighted", {"weighted": True}),
    ],
)
def test_state_of_another_computation_is_told_and_not_used(key: str, change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Stop):
        run(tmp_path, progress=stopping_after(30))
    with pytest.warns(ZooWarning, match=rf"another computation \({key} differ\); starting over"):
        resumed = run(tmp_path, **change)
    assert same_bytes(resumed, run(**change))


def test_versions_threads_and_heads_are_part_of_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Stop):
        run(tmp_path, progress=stopping_after(30))
    monkeypatch.setattr(_attention, "__version__", "9.9.9")
    monkeypatch.setattr(_attention, "use_threads", lambda: 3)
    monkeypatch.setattr(_attention.torch, "__version__", "9.9.9")
    with pytest.warns(ZooWarning, match=r"\(manifoldzoo, per_head, threads, torch differ\)"):
        run(tmp_path, per_head=True)


def left_behind(folder: Path) -> Path:
    with pytest.raises(Stop):
        run(folder, progress=stopping_after(30))
    return folder / STATE_FILE


@pytest.mark.parametrize("place", [0, 40, 0.2, 0.5, -40, -1])
def test_a_flipped_byte_anywhere_is_told_and_the_work_starts_over(place: float, tmp_path: Path) -> None:
    path = left_behind(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if isinstance(place, float) else place] ^= 1
    path.write_bytes(content)
    with pytest.warns(ZooWarning, match="starting over"):
        resumed = run(tmp_path)
    assert same_bytes(resumed, run())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:200],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"\x80\x04K\x01." + content,
        lambda content: _resume._MAGIC + b"[" * 100_000 + b"\n",
        lambda content: _resume._MAGIC + b'{"fingerprint": 3}\n',
        lambda content: _resume._MAGIC + b"[]\n",
    ],
)
def test_damaged_state_is_told_and_the_work_starts_over(damage: Any, tmp_path: Path) -> None:
    path = left_behind(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(ZooWarning, match="starting over"):
        resumed = run(tmp_path)
    assert same_bytes(resumed, run())


def test_state_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).mkdir()
    with pytest.warns(ZooWarning, match="cannot be read"):
        resumed = run(tmp_path)
    assert same_bytes(resumed, run())


@contextmanager
def _full_disk() -> Iterator[None]:
    """Let no file grow beyond a few bytes, for real."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_does_not_end_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resume, "SAVE_SECONDS", 0)
    with _full_disk(), pytest.warns(ZooWarning, match="could not be saved"):
        result = run(tmp_path)
    assert same_bytes(result, run())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_older_state_and_the_interruption(tmp_path: Path) -> None:
    path = left_behind(tmp_path)
    before = path.read_bytes()
    with _full_disk(), pytest.warns(ZooWarning, match="could not be saved"), pytest.raises(Stop):
        run(tmp_path, progress=stopping_after(50))
    assert path.read_bytes() == before
    assert same_bytes(run(tmp_path), run())


def test_a_folder_that_is_a_file_does_not_end_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_resume, "SAVE_SECONDS", 0)
    (tmp_path / "work").write_text("")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = run(tmp_path / "work")
    assert {warning.category for warning in told} == {ZooWarning}
    assert same_bytes(result, run())


def test_arrays_that_cannot_be_written_in_place_are_refused(tmp_path: Path) -> None:
    state = UnfinishedState(tmp_path / "x", {}, {"a": np.ones((3, 4)).T})
    with pytest.raises(ValueError, match="contiguous"):
        state.save()


def test_arrays_of_another_shape_are_not_filled(tmp_path: Path) -> None:
    UnfinishedState(tmp_path / "x", {"k": 1}, {"a": np.ones((3, 4))}).save()
    wanted = np.zeros(12)
    with pytest.warns(ZooWarning, match="damaged"):
        assert not UnfinishedState(tmp_path / "x", {"k": 1}, {"a": wanted}).restore()
    same = np.zeros((3, 4))
    assert UnfinishedState(tmp_path / "x", {"k": 1}, {"a": same}).restore()
    assert (same == 1).all()
