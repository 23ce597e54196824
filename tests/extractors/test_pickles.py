"""Pickled dictionaries: what is read, and what hostile and damaged ones come to."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifoldzoo.cards._errors import CheckpointError
from manifoldzoo.extractors.checkpoints._pickles import LARGEST_DICTIONARY, parse_dictionary

PATH = Path("some.pkl")
NAMES = st.text(max_size=12)


@given(st.dictionaries(NAMES, st.integers(-(2**62), 2**62)), st.integers(2, 5))
def test_integers_come_back_whatever_the_protocol(content, protocol):
    assert parse_dictionary(PATH, pickle.dumps(content, protocol), int) == content


@given(st.dictionaries(NAMES, st.floats(allow_nan=False) | st.integers(-(2**40), 2**40)), st.integers(2, 5))
def test_floats_come_back_and_integers_count_as_floats(content, protocol):
    found = parse_dictionary(PATH, pickle.dumps(content, protocol), float)
    assert found == content
    assert all(type(value) is float for value in found.values())


@given(st.dictionaries(NAMES, NAMES), st.integers(2, 5))
def test_strings_come_back(content, protocol):
    assert parse_dictionary(PATH, pickle.dumps(content, protocol), str) == content


def test_dictionaries_of_many_entries_come_back():
    content = {f"ENSG{index:011d}": index for index in range(5000)}
    assert parse_dictionary(PATH, pickle.dumps(content), int) == content


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, ">f8"])
def test_numpy_floats_become_floats(protocol, kind):
    values = np.array([1.5, -2.25, 0.0, np.inf], dtype=kind)
    content = {f"gene{index}": value for index, value in enumerate(values)}
    found = parse_dictionary(PATH, pickle.dumps(content, protocol), float)
    assert found == {"gene0": 1.5, "gene1": -2.25, "gene2": 0.0, "gene3": np.inf}
    assert {type(value) for value in found.values()} == {float}


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_numpy_integers_become_integers(kind):
    extreme = np.iinfo(kind)
    content = {"lowest": kind(extreme.min), "highest": kind(extreme.max), "again": kind(3)}
    found = parse_dictionary(PATH, pickle.dumps(content), int)
    assert found == {"lowest": extreme.min, "highest": extreme.max, "again": 3}


def test_both_names_that_numpy_had_for_its_scalars_are_known():
    content = pickle.dumps({"gene": np.float64(2.5)}, protocol=3)
    assert b"numpy._core.multiarray" in content
    older = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert parse_dictionary(PATH, older, float) == {"gene": 2.5}


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "kind", "n"),
    [
        ("token_dictionary_gc104M.pkl", int, 20_275),
        ("gene_median_dictionary_gc104M.pkl", float, 42_005),
        ("gene_name_id_dict_gc104M.pkl", str, 63_675),
    ],
)
def test_the_real_dictionaries_read_as_pickle_reads_them(shared, name, kind, n):
    path = shared / "checkpoints" / "geneformer_v2_meta" / name
    content = path.read_bytes()
    found = parse_dictionary(path, content, kind)
    assert len(found) == n
    assert found == pickle.loads(content)
    assert {type(value) for value in found.values()} == {kind}
    assert len(content) * 4 < LARGEST_DICTIONARY


# What a stranger might send


class Calls:
    """Pickles to the call of a function."""

    def __init__(self, target, *arguments):
        self.call = (target, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("target", "arguments", "said"),
    [
        (os.system, ("touch ran",), r"(posix|nt)\.system"),
        (builtins.eval, ("open('ran', 'w')",), r"(builtins|__builtin__)\.eval"),
        (builtins.exec, ("open('ran', 'w')",), r"\.exec"),
        (getattr, (1, "real"), r"\.getattr"),
        (io.open, ("ran", "w"), r"\.open"),
        (OrderedDict, (), r"collections\.OrderedDict"),
        (np.frombuffer, (b"12345678",), r"numpy.*\.frombuffer"),
        (np.zeros, (1 << 30,), r"numpy.*\.zeros"),
    ],
)
def test_calls_are_refused_by_name_and_not_made(tmp_path, monkeypatch, protocol, target, arguments, said):
    monkeypatch.chdir(tmp_path)
    for content in ({"a": Calls(target, *arguments)}, Calls(target, *arguments)):
        with pytest.raises(CheckpointError, match=f"some.pkl asks for (.*{said}|the instruction)"):
            parse_dictionary(PATH, pickle.dumps(content, protocol), float)
    assert not (tmp_path / "ran").exists()


def with_global(module: str, name: str) -> bytes:
    return b"\x80\x04}\x8c\x01a" + b"".join(b"\x8c" + bytes([len(x)]) + x.encode() for x in (module, name)) + b"\x93"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        # arguments of the two known globals
        (with_global("numpy", "dtype") + b"\x8c\x01O\x89\x88\x87Rs.", "the NumPy type 'O'"),
        (with_global("numpy", "dtype") + b"\x8c\x02V8\x89\x88\x87Rs.", "the NumPy type 'V8'"),
        (with_global("numpy", "dtype") + b"\x8c\x05f8,f8\x89\x88\x87Rs.", "the NumPy type 'f8,f8'"),
        (with_global("numpy", "dtype") + b"\x8c\x02f8\x8c\x02f8\x86\x85R", "the NumPy type"),
        (with_global("numpy", "dtype") + b")Rs.", "the NumPy type"),
        (with_global("numpy", "dtype") + b"\x8c\x02f8\x8c\x01x\x86Rs.", "the NumPy type 'f8'"),
        (with_global("numpy", "dtype") + b"N\x85\x85Rs.", "the NumPy type"),
        (with_global("numpy.core.multiarray", "scalar") + b"K\x01C\x0812345678\x86Rs.", "scalar of no plain type"),
        (with_global("numpy.core.multiarray", "scalar") + b")Rs.", "scalar of no plain type"),
        (with_global("numpy.core.multiarray", "_reconstruct") + b")Rs.", r"multiarray\._reconstruct"),
        (with_global("numpy", "ndarray") + b")Rs.", r"numpy\.ndarray"),
        (with_global("_codecs", "encode") + b")Rs.", r"_codecs\.encode"),
        # a global as a value, as an argument, with a state
        (with_global("numpy", "dtype") + b"s.", "_Global"),
        (with_global("numpy", "dtype") + b"}b", "a dictionary inside a dictionary"),
        (with_global("numpy", "dtype") + b"Nb", "the state of _Global to be set"),
        (with_global("numpy", "dtype") + b"\x8c\x02f8\x85RNb", "not that of a plain number"),
        (with_global("numpy", "dtype") + b"\x8c\x02f8\x85Rs.", "_ScalarType"),
        # what is called is no global
        (b"\x80\x04}\x8c\x01aK\x01)Rs.", "a call of something that is no NumPy scalar"),
        (b"\x80\x04}\x8c\x01aK\x01K\x02Rs.", "a call of something that is no NumPy scalar"),
        # globals whose names are no names
        (b"\x80\x04}K\x01K\x02\x93.", "a global without a name"),
        # instructions that dictionaries do not need
        (b"\x80\x04}\x8c\x01aK\x01\x81s.", "the instruction NEWOBJ"),
        (b"\x80\x04]\x8c\x01aa.", "the instruction EMPTY_LIST"),
        (b"\x80\x04\x8f.", "the instruction EMPTY_SET"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"(i__main__\nx\n.", "the instruction INST"),
        (b"P1\n.", "the instruction PERSID"),
        (b"\x80\x05\x96\x08\x00\x00\x00\x00\x00\x00\x0012345678.", "the instruction BYTEARRAY8"),
        (b"(dS'a'\nI1\ns.", "the instruction DICT"),
        # keys
        (b"\x80\x04}K\x01K\x02s.", "a key that is int"),
        (b"\x80\x04})K\x02s.", "a key that is tuple"),
    ],
)
def test_everything_else_is_refused_by_name(content, said):
    with pytest.raises(CheckpointError, match=said):
        parse_dictionary(PATH, content, float)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"N.",
        b"K\x01.",
        b"\x80\x04}K\x01.",
        b"\x80\x04}\x94h\x05.",
        b"\x80\x04}\x86.",
        b"\x80\x04}(.",
        b"\x80\x04u.",
        b"\x80\x04}\x8c\x01as.",
        b"\x80\x04}(\x8c\x01au.",
        b"\x80\x04}(\x8c\x01a(K\x01u.",
        b"\x80\x04\x94.",
        b"\x80\x04R.",
        b"\x80\x04b.",
        b"\x80\x04\x93.",
        b"\x80\x04}",
        b"\x80\x04}\x8c\xff",
        b"\x80\x04}X\xff\xff\xff\xff",
        b"\x80\x04}\x8d" + struct.pack("<Q", 1 << 62),
        b"\x80\x04}\x8e" + struct.pack("<Q", 1 << 62),
        b"\x80\x04}\x8b" + struct.pack("<i", -5),
        b"\x80\x04}\x8c\x02\xff\xff.",
        b"garbage",
        b"\x00" * 100,
        b"\x80\x04}\x8c\x01aN0.",
    ],
)
def test_damaged_content_is_refused(content):
    with pytest.raises(CheckpointError, match=r"some\.pkl (is not a whole pickled|asks for the instruction)"):
        parse_dictionary(PATH, content, int)


def test_states_of_types_are_those_of_plain_numbers():
    whole = pickle.dumps({"gene": np.float64(2.5)}, protocol=3)
    assert parse_dictionary(PATH, whole, float) == {"gene": 2.5}
    state = whole[whole.index(b"(K\x03") : whole.index(b"b", whole.index(b"(K\x03"))]
    for other in (
        state.replace(b"K\x03", b"K\x04"),
        state.replace(b"<", b"!"),
        state.replace(b"NNN", b"NNK\x01"),
        state.replace(b"K\x00t", b"K?t"),
        b"K\x01",
        b")",
    ):
        assert other != state
        with pytest.raises(CheckpointError, match="not that of a plain number"):
            parse_dictionary(PATH, whole.replace(state, other), float)
    short = whole.replace(b"C\x08" + struct.pack("<d", 2.5), b"C\x07" + struct.pack("<d", 2.5)[:7])
    with pytest.raises(CheckpointError, match="not a whole pickled dictionary"):
        parse_dictionary(PATH, short, float)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (1.5, int, "'gene' is float, expected a dictionary from str to int"),
        ("1", int, "'gene' is str"),
        (True, int, "'gene' is bool"),
        (None, float, "'gene' is NoneType"),
        (b"1", str, "'gene' is bytes"),
        (3, str, "'gene' is int"),
        (True, float, "'gene' is bool"),
        ((1.0,), float, "'gene' is tuple"),
        (2**2000, float, "'gene' is int"),
    ],
)
def test_values_of_another_kind_are_refused_with_their_gene(value, kind, said):
    with pytest.raises(CheckpointError, match=said):
        parse_dictionary(PATH, pickle.dumps({"gene": value}), kind)


def test_a_dictionary_that_holds_itself_is_refused():
    content = {}
    content["self"] = content
    with pytest.raises(CheckpointError, match="'self' is dict"):
        parse_dictionary(PATH, pickle.dumps(content), float)


def test_small_files_that_grow_take_neither_time_nor_memory():
    import tracemalloc

    laughs = b"\x80\x04}\x94K\x01\x85" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(1, 60))
    bombs = {
        # hashed, compared or shown, each of these would take for ever
        "tuples as key": laughs + b"K\x01s.",
        "tuples as value": b"\x80\x04}\x94\x8c\x01aK\x01\x85"
        + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(1, 60))
        + b"s.",
        "tuples as name": laughs + b"\x8c\x01a\x93.",
        "tuples as type": with_global("numpy", "dtype") + laughs[3:] + b"\x85R",
        "memo": b"\x80\x04}r" + struct.pack("<I", 0xFFFFFFFF) + b".",
        "string": b"\x80\x04}X" + struct.pack("<I", 0xFFFFFFFF) + b".",
        "bytes": b"\x80\x04}\x8e" + struct.pack("<Q", 1 << 40) + b".",
        "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"}.",
        "nested": b"\x80\x04}\x8c\x01a)" + b"\x85" * 1_000_000 + b"s.",
        "marks": b"\x80\x04}" + b"(" * 1_000_000 + b".",
        "stack": b"\x80\x04}" + b"N" * 1_000_000 + b".",
        "integer": b"\x80\x04}\x8c\x01a\x8b" + struct.pack("<I", 1 << 20) + b"\x01" * (1 << 20) + b"s.",
        "digits": b"}I" + b"9" * 100_000 + b"\n.",
    }
    for name, bomb in bombs.items():
        tracemalloc.start()
        begun = time.perf_counter()
        said = outcome(bomb)
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert taken < 300_000_000, (name, taken)
        assert time.perf_counter() - begun < 20, name
        # a place in the memo is a name, and the length of a frame is not needed
        assert said == "{}" if name in ("memo", "frame") else said.startswith("some.pkl"), name
        assert len(said) < 400, name


def outcome(content: bytes) -> str:
    try:
        return str(parse_dictionary(PATH, content, float))
    except CheckpointError as error:
        return str(error)


def test_a_file_larger_than_any_dictionary_is_refused_unparsed():
    with pytest.raises(CheckpointError, match=r"has 8388609 bytes, more than the 8388608"):
        parse_dictionary(PATH, b"\x80\x04}" + b"." * (LARGEST_DICTIONARY - 2), float)


@given(st.data())
def test_any_damage_ends_in_a_dictionary_or_an_error_of_ours(data):
    whole = pickle.dumps({"a": np.float64(1.5), "b": 2.0, "c": 3}, protocol=data.draw(st.sampled_from([2, 3, 4])))
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = parse_dictionary(PATH, content, float)
    except CheckpointError:
        return
    assert all(type(name) is str and type(value) is float for name, value in found.items())


@given(st.binary(max_size=60))
def test_any_bytes_end_in_a_dictionary_or_an_error_of_ours(content):
    for opening in (b"", b"\x80\x04}(", b"\x80\x04}\x8c\x01a"):
        try:
            assert isinstance(parse_dictionary(PATH, opening + content, float), dict)
        except CheckpointError:
            continue


def test_no_module_is_imported_for_a_pickle():
    name = "antigravity"
    assert name not in sys.modules
    with pytest.raises(CheckpointError, match=r"antigravity\.fly"):
        parse_dictionary(PATH, with_global(name, "fly"), float)
    assert name not in sys.modules
