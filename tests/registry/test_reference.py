from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from manifoldzoo.cards._errors import ReferenceSyntaxError
from manifoldzoo.registry._reference import FolderReference, HubReference, NamedReference, parse_reference

names = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)
numbers = st.integers(0, 40)
versions = st.tuples(numbers, numbers, numbers).map(lambda parts: ".".join(map(str, parts)))
repos = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}/[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("hematopoietic", NamedReference("hematopoietic")),
        ("hematopoietic@1.2.0", NamedReference("hematopoietic", "1.2.0")),
        ("hematopoietic@1", NamedReference("hematopoietic", "1")),
        ("hematopoietic@1.2", NamedReference("hematopoietic", "1.2")),
        ("hematopoietic@~1.2", NamedReference("hematopoietic", "~1.2")),
        ("cd4-cd8@~0.2.3", NamedReference("cd4-cd8", "~0.2.3")),
        ("owner/repo", HubReference("owner/repo")),
        ("Owner/Re.po_1", HubReference("Owner/Re.po_1")),
        ("owner/repo@1.2.0", HubReference("owner/repo", "1.2.0")),
        ("owner/repo@main", HubReference("owner/repo", "main")),
        ("owner/repo@refs/pr/1", HubReference("owner/repo", "refs/pr/1")),
        ("hf://owner/repo", HubReference("owner/repo")),
        ("hf://owner/repo@" + "a" * 40, HubReference("owner/repo", "a" * 40)),
        ("./folder", FolderReference(Path("folder"))),
        ("./owner/repo@1", FolderReference(Path("owner/repo@1"))),
        ("../folder", FolderReference(Path("../folder"))),
        (".", FolderReference(Path())),
        ("/a/b/c", FolderReference(Path("/a/b/c"))),
        (Path("a/b"), FolderReference(Path("a/b"))),
    ],
)
def test_table(text: str | Path, parsed: object) -> None:
    assert parse_reference(text) == parsed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@1.0.0",
        "a/b/c",
        "hf://a",
        "hf://a/b/c",
        "<",
        "name<2",
        "name>=1",
        "Name",
        "na_me",
        "-name",
        "name-",
        "a--b",
        "a" * 65,
        "name@",
        "owner/repo@",
        "hf://owner/repo@",
        "owner/repo@../../etc",
        "owner/repo@a..b",
        "owner/repo@-x",
        "owner/repo@a b",
        "owner/repo\n",
        "owner/repo@main\n",
        "name\n",
        "name@1\n",
        "name@~1",
        "name@1.2.3.4",
        "name@01",
        "name@1.02.0",
        "name@1.2.0rc1",
        "name@main",
        "name@\u0661",
        "owner /repo",
        "x@1/../y",
        "~nobody-has-this-name-here/x",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(ReferenceSyntaxError) as caught:
        parse_reference(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except ReferenceSyntaxError:
        return
    assert isinstance(parsed, NamedReference | HubReference | FolderReference)
    if not isinstance(parsed, FolderReference):
        assert parse_reference(str(parsed)) == parsed
        assert not set(str(parsed)) & set("<>|&;$ \n")


@given(names, st.one_of(st.just(""), versions, versions.map(lambda v: "~" + v), numbers.map(str)))
def test_named_round_trip(name: str, wanted: str) -> None:
    parsed = parse_reference(f"{name}@{wanted}" if wanted else name)
    assert parsed == NamedReference(name, wanted)
    assert parse_reference(str(parsed)) == parsed


@given(repos, st.one_of(st.just(""), versions, st.just("main"), st.just("f" * 40)))
def test_hub_round_trip(repo: str, revision: str) -> None:
    text = f"{repo}@{revision}" if revision else repo
    assert parse_reference(text) == parse_reference(f"hf://{text}") == HubReference(repo, revision)


@pytest.mark.parametrize(
    ("wanted", "accepted", "refused"),
    [
        ("", ["0.0.1", "1.2.0", "30.0.0"], []),
        ("1.2.0", ["1.2.0"], ["1.2.1", "1.20.0", "11.2.0"]),
        ("1", ["1.0.0", "1.2.0", "1.99.9"], ["0.9.0", "2.0.0", "10.0.0", "11.0.0"]),
        ("1.2", ["1.2.0", "1.2.9"], ["1.1.0", "1.20.0", "1.3.0"]),
        ("~1.2", ["1.2.0", "1.2.5", "1.30.0"], ["1.1.9", "2.0.0", "0.1.2"]),
        ("~1.2.3", ["1.2.3", "1.2.10"], ["1.2.2", "1.3.0", "2.2.3"]),
        ("0", ["0.1.0"], ["1.0.0"]),
    ],
)
def test_ranges(wanted: str, accepted: list[str], refused: list[str]) -> None:
    reference = NamedReference("name", wanted)
    assert [v for v in accepted + refused if reference.accepts(Version(v))] == accepted
    assert reference.exact == (wanted == "1.2.0")


@pytest.mark.parametrize(
    ("revision", "tag", "pinned"),
    [
        ("", "main", False),
        ("main", "main", False),
        ("1.2.0", "v1.2.0", True),
        ("v1.2.0", "v1.2.0", True),
        ("1.2", "1.2", False),
        ("a" * 40, "a" * 40, True),
        ("a" * 39, "a" * 39, False),
    ],
)
def test_tag_and_pin(revision: str, tag: str, pinned: bool) -> None:
    reference = HubReference("owner/repo", revision)
    assert (reference.tag, reference.pinned) == (tag, pinned)
