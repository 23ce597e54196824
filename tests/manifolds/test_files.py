from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from manifoldzoo.cards._errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    PermissionDeniedError,
    StoreError,
)
from manifoldzoo.manifolds import _files
from manifoldzoo.manifolds._files import decode_tensors, encode_tensors, replacing, write_bytes


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own, for tests that fill it or make it read-only."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def have_mount():
    if os.geteuid() != 0 or not Path("/bin/mount").exists():
        pytest.skip("mounting a tmpfs needs root")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_with_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "new" / "a.json", b"one")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "a.json").read_bytes() == b"one"
    assert stat.S_IMODE((tmp_path / "new" / "a.json").stat().st_mode) == 0o640
    assert names(tmp_path / "new") == ["a.json"]


def test_an_older_file_is_replaced_not_rewritten(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    os.link(tmp_path / "a", tmp_path / "link")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "link").read_bytes() == b"old"


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError(5, "Input/output error")])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_failure_in_the_middle_leaves_the_old_file_and_no_litter(tmp_path, error, old):
    target = tmp_path / "a"
    if old is not None:
        target.write_bytes(old)
    with pytest.raises(StoreError if isinstance(error, OSError) else type(error)), replacing(target) as part:  # noqa: PT012
        part.write_bytes(b"half")
        assert part.parent == target.parent
        raise error
    assert names(tmp_path) == (["a"] if old else [])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("error", [IntegrityError("m", files=("a",)), PermissionDeniedError("m"), NotFoundError("m")])
def test_our_own_errors_pass_through_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, replacing(tmp_path / "a"):
        raise error
    assert caught.value is error
    assert names(tmp_path) == []


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with replacing(tmp_path / "a") as part:
        part.write_bytes(b"new")
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.usefixtures("have_mount")
def test_a_full_disk_is_a_store_error_that_leaves_the_old_file(tmp_path):
    with mounted(tmp_path / "small", "size=64k") as disk:
        write_bytes(disk / "a", b"old")
        with pytest.raises(StoreError, match="space") as caught:
            write_bytes(disk / "a", bytes(1 << 20))
        assert caught.value.exit_code == 3
        assert (disk / "a").read_bytes() == b"old"
        assert names(disk) == ["a"]


@pytest.mark.usefixtures("have_mount")
def test_a_read_only_disk_is_refused(tmp_path):
    with mounted(tmp_path / "fixed", "size=64k") as disk:
        write_bytes(disk / "a", b"old")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StoreError, match="ead-only"):
            write_bytes(disk / "a", b"new")
        assert (disk / "a").read_bytes() == b"old"


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    if os.geteuid() == 0:
        # root may write anywhere, so the refusal is the operating system's, told second-hand
        def refuse(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(_files.tempfile, "mkstemp", refuse)
    (tmp_path / "fixed").mkdir(mode=0o500)
    with pytest.raises(PermissionDeniedError, match="fixed") as caught:
        write_bytes(tmp_path / "fixed" / "a", b"x")
    assert caught.value.exit_code == 3


def test_a_file_in_the_way_of_the_folder_is_a_store_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StoreError, match="a"):
        write_bytes(tmp_path / "a" / "b", b"x")


def test_a_folder_in_the_way_of_the_file_is_a_store_error(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(StoreError, match="a"):
        write_bytes(tmp_path / "a", b"x")
    assert names(tmp_path) == ["a"]


ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.float32, np.float64]),
    shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=6),
    elements=st.floats(-1e6, 1e6, width=32),
)


def layouts(array):
    """The same values in every memory layout numpy has."""
    yield "C", np.ascontiguousarray(array)
    yield "F", np.asfortranarray(array)
    yield "transposed", array.T.copy().T
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), np.nan, array.dtype)
    wide[..., 1::2] = array
    yield "strided", wide[..., 1::2]
    yield "reversed", array[::-1].copy()[::-1]
    tall = np.full((array.shape[0] + 3, *array.shape[1:]), np.nan, array.dtype)
    tall[2:-1] = array
    yield "sliced", tall[2:-1]
    fixed = array.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed
    shifted = np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)
    yield "unaligned", shifted


@given(ARRAYS)
def test_every_memory_layout_round_trips_to_the_same_bytes(array):
    expected = encode_tensors({"a": np.array(array, order="C")})
    for layout, same in layouts(array):
        content = encode_tensors({"a": same})
        back = decode_tensors(content, where="x")["a"]
        assert back.dtype == array.dtype, layout
        np.testing.assert_array_equal(back, array, err_msg=layout)
        assert content == expected, layout


@given(st.permutations(["a", "b", "c.d", "e"]))
def test_the_order_of_tensors_does_not_change_the_bytes(order):
    tensors = {name: np.full((2, 3), position, np.float32) for position, name in enumerate(["a", "b", "c.d", "e"])}
    assert encode_tensors({name: tensors[name] for name in order}) == encode_tensors(tensors)


def test_different_input_gives_different_bytes():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    others = [{"b": array}, {"a": array.T}, {"a": array.astype(np.float64)}, {"a": array + 1}, {"a": array, "b": array}]
    contents = [encode_tensors(tensors) for tensors in ({"a": array}, *others)]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3)), np.array([1, np.nan]), np.array([np.inf]), np.array([[1, 2], [-np.inf, 0]], np.float32)]
)
def test_empty_and_infinite_tensors_are_refused(array):
    with pytest.raises(FormatError, match="weights"):
        encode_tensors({"weights": array})


CONTENT = save({"a": np.arange(12, dtype=np.float32).reshape(3, 4)})


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 20, len(CONTENT) - 1])
def test_truncated_tensors_are_refused(keep):
    with pytest.raises(FormatError, match="my file"):
        decode_tensors(CONTENT[:keep], where="my file")


@pytest.mark.parametrize(
    "content",
    [
        CONTENT + b"x",
        b"\xff" * 64,
        b"PK\x03\x04" + bytes(60),
        b"\x80\x04\x95" + bytes(60),
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        CONTENT.replace(b'"F32"', b'"F99"'),
        CONTENT.replace(b'"F32"', b'"U16"'),
        CONTENT.replace(b"[3,4]", b"[4,4]"),
        CONTENT.replace(b'"F32"', b'"C64"'),
    ],
    ids=["tail", "noise", "zip", "pickle", "huge-header", "not-an-object", "dtype", "narrow", "shape", "wide"],
)
def test_what_is_not_safetensors_is_refused(content):
    with pytest.raises(FormatError, match="my file"):
        decode_tensors(content, where="my file")


@given(st.binary(max_size=200), st.integers(0, len(CONTENT) - 1))
def test_noise_never_raises_anything_else(noise, at):
    for content in (noise, CONTENT[:at] + noise + CONTENT[at:]):
        with suppress(FormatError):
            decode_tensors(content, where="x")


def test_dtypes_that_numpy_lacks_are_refused():
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    with pytest.raises(FormatError, match="x"):
        decode_tensors(len(header).to_bytes(8, "little") + header + bytes(4), where="x")
