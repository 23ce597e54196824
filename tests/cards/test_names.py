from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifoldzoo.cards._errors import ReferenceSyntaxError
from manifoldzoo.cards._names import canonical_json, check_name, parse_version, sha256_bytes, sha256_file

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
DOCUMENTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner), max_leaves=8),
)


def reordered(value, shuffle):
    if isinstance(value, dict):
        return {key: reordered(value[key], shuffle) for key in shuffle(list(value))}
    return [reordered(item, shuffle) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["hematopoietic", "cell-cycle", "cd4-cd8", "7", "a" * 64])
def test_names_that_are_allowed(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-", "a-", "-a", "a--b", "A", "a_b", "a b", "a/b", "a.b", "..", "a\n", "a@1", "bé", "a" * 65],
)
def test_names_that_are_refused(name):
    with pytest.raises(ReferenceSyntaxError) as caught:
        check_name(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    "version",
    ["", "1", "1.0", "01.0.0", "1.00.0", "1.0.0.0", "v1.0.0", "1.0.0rc1", "1.0.0+a", "-1.0.0", "1.0.0\n", "1٣.0.0"],
)
def test_versions_that_are_refused(version):
    with pytest.raises(ReferenceSyntaxError) as caught:
        parse_version(version)
    assert repr(version) in str(caught.value)


def test_versions_order_as_numbers():
    versions = ["10.0.0", "0.9.1", "0.10.0", "2.0.0", "0.9.0"]
    assert sorted(versions, key=parse_version) == ["0.9.0", "0.9.1", "0.10.0", "2.0.0", "10.0.0"]


@given(DOCUMENTS, st.randoms(use_true_random=False))
def test_key_order_never_changes_the_digest(document, random):
    other = reordered(document, lambda keys: random.sample(keys, len(keys)))
    assert canonical_json(other) == canonical_json(document)
    assert json.loads(canonical_json(document)) == document


def test_canonical_json_is_sorted_compact_utf8():
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_canonical_json_refuses_what_json_has_no_word_for(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": value})


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == sha256_bytes(content) == hashlib.sha256(content).hexdigest()
