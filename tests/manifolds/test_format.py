from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_document, tiny_manifold, tiny_manifold_with_everything

from manifoldzoo.cards._errors import (
    FormatError,
    FutureFormatError,
    IntegrityError,
    NotFoundError,
    UnsafeFileError,
    ZooError,
)
from manifoldzoo.cards._evidence_plan import EvidencePlan
from manifoldzoo.cards._names import canonical_json, sha256_bytes
from manifoldzoo.cards._programs import GeneProgram
from manifoldzoo.manifolds import _format
from manifoldzoo.manifolds._format import (
    CARD,
    CRITICAL,
    GENES,
    MANIFEST,
    MAX_FILE_SIZE,
    TENSORS,
    VECTORS,
    Manifest,
    check_files,
    check_member,
    check_path,
    list_artifact,
    read_card,
    read_verified,
)
from manifoldzoo.manifolds._manifold import Manifold, in_format
from manifoldzoo.manifolds._readouts import vector_of

GOLDEN = sorted((Path(__file__).resolve().parents[1] / "data" / "golden").glob("format-*"))
# pinned so that a golden artifact made anew is noticed
DIGESTS = {
    "format-1": "07bc5db6cee8cec9012fe65375d85772983adfa6c32f27bb175df58a83f3bcc8",
    "format-2": "d2c98221986f96bcec6e76e5ac2514c9ba2b407109aae0d9ef07777e24ad480a",
    "format-3": "014c424b2c40c738655c0071bd52e7e0eb3a8cbe77f8a0090b9f818ac86658a6",
    "format-4": "b18ab4a02a7923197f5aa69c61913f8b209cc09522cc8bf3036cfea8bc4735c5",
}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return tiny_manifold().save(tmp_path_factory.mktemp("artifact") / "tiny")


@pytest.fixture
def artifact(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


def remake_manifest(folder):
    """List whatever the files now hold, as somebody who tampers would."""
    (folder / MANIFEST).write_bytes(Manifest.of({name: (folder / name).read_bytes() for name in CRITICAL}).to_bytes())


def entries(**changes):
    listed = [{"name": name, "size": 1, "sha256": "0" * 64} for name in sorted(CRITICAL)]
    listed[0] |= changes
    return listed


def manifest_bytes(**changes):
    return canonical_json({"format_version": 1, "files": entries()} | changes)


def test_a_manifest_survives_its_bytes(pristine):
    content = (pristine / MANIFEST).read_bytes()
    manifest = Manifest.parse(content)
    assert manifest.to_bytes() == content
    assert manifest.digest == sha256_bytes(content)
    assert [entry.name for entry in manifest.files] == sorted(CRITICAL)


@given(st.permutations(sorted(CRITICAL)))
def test_the_digest_does_not_depend_on_the_order_of_files(order):
    contents = {name: name.encode() for name in CRITICAL}
    assert Manifest.of({name: contents[name] for name in order}).digest == Manifest.of(contents).digest


@pytest.mark.parametrize("name", CRITICAL)
def test_the_digest_covers_every_content_and_name(name):
    contents = dict.fromkeys(CRITICAL, b"same")
    digests = {Manifest.of(contents).digest, Manifest.of(contents | {name: b"emas"}).digest}
    renamed = {("other" if n == name else n): c for n, c in contents.items()}
    assert len(digests | {Manifest.of(renamed).digest}) == 3


@pytest.mark.parametrize("version", [5, 99, 10**30])
def test_a_newer_format_is_refused_before_anything_else(version):
    with pytest.raises(FutureFormatError, match=str(version)) as caught:
        Manifest.parse(json.dumps({"format_version": version, "whatever": []}).encode())
    assert "pip install" in caught.value.hint


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, [1]])
def test_a_version_that_is_no_positive_integer_is_refused(version):
    with pytest.raises(FormatError, match="format_version") as caught:
        Manifest.parse(manifest_bytes(format_version=version))
    assert not isinstance(caught.value, FutureFormatError)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"{",
        b"[1]",
        b"1",
        b"null",
        b'"format_version"',
        b"{}",
        b"\xff\xfe{}",
        b"\x80" * 20,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format_version":1}',
        b'{"format_version":1,"files":{}}',
        b'{"format_version":' + b"1" * 5000 + b',"files":[]}',
        manifest_bytes(files=[]),
        manifest_bytes(files=entries()[1:]),
        manifest_bytes(files=[*entries(), {"name": "README.md", "size": 1, "sha256": "0" * 64}]),
        manifest_bytes(files=[*entries(), entries()[0]]),
        manifest_bytes(files=[entries()[0], *entries()]),
        manifest_bytes(files=[*entries()[1:], entries()[1]]),
        manifest_bytes(files=[*entries()[1:], ["card.json", 1, "0" * 64]]),
        manifest_bytes(files=[*entries()[1:], {"name": "card.json", "size": 1}]),
        manifest_bytes(files=entries(mode=7)),
        manifest_bytes(comment="x"),
        manifest_bytes() + b"\n",
        json.dumps({"format_version": 1, "files": entries()}).encode(),
        manifest_bytes(files=entries()[::-1]),
        manifest_bytes().replace(b'{"files"', b'{"files":[],"files"'),
        manifest_bytes().decode().encode("utf-16"),
        b"\xef\xbb\xbf" + manifest_bytes(),
    ],
)
def test_what_is_not_a_manifest_is_refused(content):
    with pytest.raises(FormatError):
        Manifest.parse(content)


def test_the_manifest_these_are_made_from_is_accepted():
    assert len(Manifest.parse(manifest_bytes()).files) == len(CRITICAL)


@pytest.mark.parametrize("size", [-1, True, 1.0, "1", None, MAX_FILE_SIZE + 1, 10**40])
def test_sizes_that_no_file_may_have_are_refused(size):
    with pytest.raises(FormatError, match=r"card\.json"):
        Manifest.parse(manifest_bytes(files=entries(size=size)))


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", None, 0])
def test_digests_that_are_not_sha256_are_refused(digest):
    with pytest.raises(FormatError, match=r"card\.json"):
        Manifest.parse(manifest_bytes(files=entries(sha256=digest)))


@pytest.mark.parametrize("name", [None, 1, ["card.json"]])
def test_names_that_are_not_text_are_refused(name):
    with pytest.raises(FormatError, match="name"):
        Manifest.parse(manifest_bytes(files=entries(name=name)))


UNSAFE = [
    "",
    "../x",
    "a/../x",
    "..",
    ".",
    "a/./b",
    "/etc/passwd",
    "//x",
    "a//b",
    "a/",
    "..\\x",
    "a\\b",
    "C:\\x",
    "C:x",
    "c:/x",
    "card.json\0",
    "card.json\n",
    "\x1b[31m",
]


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_leave_the_folder_are_refused(name):
    for check in (check_path, check_member, lambda n: Manifest.parse(manifest_bytes(files=entries(name=n)))):
        with pytest.raises(UnsafeFileError) as caught:
            check(name)
        assert repr(name) in str(caught.value)


@given(st.text(st.sampled_from("ab./\\:\0\n"), max_size=8))
def test_no_accepted_name_leads_outside(name):
    try:
        path = check_path(name)
    except UnsafeFileError:
        return
    root = Path("/some/where")
    assert Path(os.path.normpath(root / path)).is_relative_to(root)
    assert str(path) == name


@pytest.mark.parametrize(
    "name", [*CRITICAL, MANIFEST, "README.md", "evidence/2026-01.json", "figures/a.png", "figures/a_b.svg"]
)
def test_members_that_the_format_knows(name):
    check_member(name)


@pytest.mark.parametrize(
    "name",
    [
        *("a.pkl", "a.PKL", "model.pt", "a.pth", "a.bin", "x.npy", "x.npz", "a.joblib", "a.ckpt", "a.h5ad"),
        *("setup.py", "a.sh", "a.so", "evidence/a.pkl", "figures/a.html", "figures/x.py"),
    ],
)
def test_members_that_can_carry_code_are_refused(name):
    with pytest.raises(UnsafeFileError, match=name):
        check_member(name)


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "card.json.bak", "CARD.json", "readme.md", "card.json ", "x.safetensors", "a/card.json"),
        *("evidence/a.txt", "evidence/a/b.json", "evidence/.json", "figures/a.gif"),
    ],
)
def test_members_that_the_format_does_not_know_are_refused(name):
    with pytest.raises(FormatError, match=name):
        check_member(name)


def test_an_artifact_is_listed_with_what_lies_beside_it(artifact):
    for name in ("README.md", "evidence/a.json", "figures/a.png"):
        (artifact / name).parent.mkdir(exist_ok=True)
        (artifact / name).write_bytes(b"x")
    (artifact / ".gitattributes").write_bytes(b"* text")
    (artifact / ".cache/huggingface/download").mkdir(parents=True)
    (artifact / ".cache/huggingface/download/x.lock").write_bytes(b"")
    beside = ["README.md", "evidence/a.json", "figures/a.png"]
    assert list_artifact(artifact) == sorted([MANIFEST, *CRITICAL, *beside])
    assert Manifold.read(artifact).digest == Manifest.parse((artifact / MANIFEST).read_bytes()).digest


@pytest.mark.parametrize("reader", [list_artifact, read_verified, read_card, check_files, Manifold.read])
class TestFolders:
    """Whatever opens an artifact holds the folder against the format first."""

    @pytest.mark.parametrize("name", ["weights.pkl", "model.pt", "load.py", "evidence/x.py"])
    def test_code_is_refused(self, artifact, reader, name):
        (artifact / name).parent.mkdir(exist_ok=True)
        (artifact / name).write_bytes(b"x")
        with pytest.raises(UnsafeFileError, match=name):
            reader(artifact)

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "card.json~", "evidence/x.txt", ".cache/other"])
    def test_unknown_files_are_refused(self, artifact, reader, name):
        (artifact / name).parent.mkdir(exist_ok=True)
        (artifact / name).write_bytes(b"x")
        with pytest.raises(FormatError, match=name):
            reader(artifact)

    @pytest.mark.parametrize("name", ["sub", "evidence/sub", "README.md", "x.png"])
    def test_unknown_folders_are_refused(self, artifact, reader, name):
        (artifact / name).mkdir(parents=True)
        with pytest.raises(FormatError, match=name):
            reader(artifact)

    def test_a_folder_in_place_of_a_file_is_refused(self, artifact, reader):
        (artifact / CARD).unlink()
        (artifact / CARD).mkdir()
        with pytest.raises(FormatError, match=CARD):
            reader(artifact)

    @pytest.mark.parametrize("name", [GENES, "README.md", "evidence", "figures"])
    def test_links_are_refused(self, artifact, reader, name, tmp_path):
        outside = tmp_path / "outside"
        if name in ("evidence", "figures"):
            outside.mkdir()
        else:
            outside.write_bytes((artifact / GENES).read_bytes())
        (artifact / name).unlink(missing_ok=True)
        (artifact / name).symlink_to(outside)
        with pytest.raises(UnsafeFileError, match=name):
            reader(artifact)

    @pytest.mark.parametrize("target", ["README.md", "nowhere", GENES])
    def test_links_to_themselves_to_nothing_or_inside_are_refused(self, artifact, reader, target, tmp_path):
        (artifact / "README.md").symlink_to(target)
        with pytest.raises(UnsafeFileError, match=r"README\.md"):
            reader(artifact)
        (tmp_path / "blobs").mkdir()
        with pytest.raises(UnsafeFileError, match=r"README\.md"):
            reader(artifact, links_into=tmp_path / "blobs")

    def test_a_pipe_is_refused_without_waiting_for_it(self, artifact, reader):
        (artifact / TENSORS).unlink()
        os.mkfifo(artifact / TENSORS)
        with pytest.raises(UnsafeFileError, match=TENSORS):
            reader(artifact)

    def test_links_into_the_cache_are_followed_and_no_others(self, artifact, reader, tmp_path):
        blobs = tmp_path / "blobs"
        blobs.mkdir()
        for name in (*CRITICAL, MANIFEST):
            shutil.move(artifact / name, blobs / f"{name}.blob")
            (artifact / name).symlink_to(f"../blobs/{name}.blob")
        reader(artifact, links_into=blobs)
        (tmp_path / "blobs2").mkdir()
        shutil.copy(blobs / f"{GENES}.blob", tmp_path / "blobs2" / "x")
        (artifact / GENES).unlink()
        (artifact / GENES).symlink_to("../blobs/../blobs2/x")
        with pytest.raises(UnsafeFileError, match=GENES):
            reader(artifact, links_into=blobs)
        # out of the cache in a second step
        (blobs / "onward").symlink_to(tmp_path / "blobs2" / "x")
        (artifact / GENES).unlink()
        (artifact / GENES).symlink_to("../blobs/onward")
        with pytest.raises(UnsafeFileError, match=GENES):
            reader(artifact, links_into=blobs)

    def test_no_folder_is_not_found(self, artifact, reader):
        for path in (artifact / "nowhere", artifact / CARD):
            with pytest.raises(NotFoundError, match=path.name):
                reader(path)


@pytest.mark.parametrize("reader", [read_verified, read_card, check_files, Manifold.read])
def test_a_folder_without_a_manifest_is_no_artifact(artifact, reader):
    (artifact / MANIFEST).unlink()
    with pytest.raises(FormatError, match=MANIFEST):
        reader(artifact)


@pytest.mark.parametrize("name", CRITICAL)
def test_a_missing_file_is_named(artifact, name):
    (artifact / name).unlink()
    for reader in (read_verified, Manifold.read):
        with pytest.raises(IntegrityError, match=name) as caught:
            reader(artifact)
        assert caught.value.files == (name,)
    assert {c.name: c.status for c in check_files(artifact)} == {
        n: "missing" if n == name else "ok" for n in (MANIFEST, *CRITICAL)
    }


def test_every_damaged_file_is_named(artifact):
    (artifact / GENES).unlink()
    (artifact / VECTORS).write_bytes(b"longer or shorter")
    with pytest.raises(IntegrityError) as caught:
        read_verified(artifact)
    assert set(caught.value.files) == {GENES, VECTORS}


def test_the_bytes_returned_are_those_that_were_hashed(artifact):
    manifest, contents = read_verified(artifact)
    assert set(contents) == set(CRITICAL)
    assert {entry.name: entry.sha256 for entry in manifest.files} == {n: sha256_bytes(c) for n, c in contents.items()}


@pytest.fixture(scope="module")
def flippable(pristine, tmp_path_factory):
    return Path(shutil.copytree(pristine, tmp_path_factory.mktemp("flip") / "tiny"))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from([*CRITICAL, MANIFEST]), bits=st.integers(1, 255))
def test_any_flipped_byte_is_caught(flippable, data, name, bits):
    path = flippable / name
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    try:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :])
        with pytest.raises(ZooError) as caught:
            read_verified(flippable)
        if name != MANIFEST:
            assert isinstance(caught.value, IntegrityError)
            assert caught.value.files == (name,)
            assert [c.name for c in check_files(flippable) if c.status == "changed"] == [name]
        if name == CARD:
            with pytest.raises(IntegrityError):
                read_card(flippable)
    finally:
        path.write_bytes(whole)
    read_verified(flippable)


@pytest.mark.parametrize("name", CRITICAL)
@pytest.mark.parametrize(
    "change", [lambda c: c[:-1], lambda c: c + b"\0", lambda _: b""], ids=["short", "long", "empty"]
)
def test_a_file_of_another_length_is_caught(artifact, name, change):
    (artifact / name).write_bytes(change((artifact / name).read_bytes()))
    with pytest.raises(IntegrityError, match=name):
        read_verified(artifact)


@pytest.mark.parametrize("name", [TENSORS, VECTORS])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_truncated_tensors_with_a_matching_manifest_are_refused(artifact, name, keep):
    content = (artifact / name).read_bytes()
    (artifact / name).write_bytes(content[: int(len(content) * keep)])
    remake_manifest(artifact)
    with pytest.raises(FormatError, match=name):
        Manifold.read(artifact)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b"1" * 5000,
        json.dumps(tiny_document() | {"nickname": "t"}).encode(),
        json.dumps(tiny_document(card_version=5)).encode(),
        json.dumps(tiny_document(limits=["\ud800"])).encode(),
    ],
)
def test_a_card_at_fault_with_a_matching_manifest_is_refused(artifact, content):
    (artifact / CARD).write_bytes(content)
    remake_manifest(artifact)
    for reader in (Manifold.read, read_card):
        with pytest.raises(FormatError, match=r"card\.json"):
            reader(artifact)


def test_a_card_whose_ruler_is_broken_is_refused_on_loading(artifact):
    document = tiny_document()
    document["ruler"]["edges"] = document["ruler"]["edges"][1:]
    (artifact / CARD).write_bytes(json.dumps(document).encode())
    remake_manifest(artifact)
    with pytest.raises(FormatError, match="left_1"):
        Manifold.read(artifact)


def test_genes_at_fault_with_a_matching_manifest_are_refused(artifact):
    content = (artifact / GENES).read_bytes()
    for changed in (b"", content.replace(b"GENE1\t", b"GENE2\t"), content[:-30], content + b"MORE\t\n"):
        (artifact / GENES).write_bytes(changed)
        remake_manifest(artifact)
        with pytest.raises(FormatError, match=GENES):
            Manifold.read(artifact)


def test_a_card_is_read_without_the_tensors(artifact):
    (artifact / TENSORS).write_bytes(b"damaged")
    card, manifest = read_card(artifact)
    assert card.name == "tiny"
    assert manifest.digest == sha256_bytes((artifact / MANIFEST).read_bytes())


def test_files_larger_than_an_artifact_may_hold_are_not_read(artifact, monkeypatch):
    limit = max(path.stat().st_size for path in artifact.iterdir())
    monkeypatch.setattr(_format, "MAX_FILE_SIZE", limit)
    check_files(artifact)
    with (artifact / GENES).open("r+b") as stream:
        stream.truncate(limit + 1)
    with pytest.raises(FormatError, match=GENES):
        check_files(artifact)
    with (artifact / MANIFEST).open("r+b") as stream:
        stream.truncate(_format.MAX_TEXT_SIZE + 1)
    with pytest.raises(FormatError, match=str(_format.MAX_TEXT_SIZE)):
        read_verified(artifact)


def test_a_changed_card_does_not_put_the_manifest_to_blame(artifact):
    content = (artifact / CARD).read_bytes()
    (artifact / CARD).write_bytes(content.replace(b'"card_version": 4', b'"card_version":14'))
    assert (artifact / CARD).read_bytes() != content
    assert [check.name for check in check_files(artifact) if check.status == "changed"] == [CARD]


def test_a_read_only_artifact_is_read(artifact):
    for path in artifact.iterdir():
        path.chmod(0o444)
    artifact.chmod(0o555)
    try:
        assert Manifold.read(artifact).name == "tiny"
    finally:
        artifact.chmod(0o755)


def test_a_card_of_an_older_format_is_migrated(monkeypatch):
    steps = {1: lambda card: card | {"seen": [1]}, 2: lambda card: card | {"seen": [*card["seen"], 2]}}
    monkeypatch.setattr(_format, "FORMAT_VERSION", 3)
    monkeypatch.setattr(_format, "MIGRATIONS", steps)
    assert _format.migrate({}, 1) == {"seen": [1, 2]}
    assert _format.migrate({"seen": []}, 2) == {"seen": [2]}
    assert _format.migrate({}, 3) == {}


@pytest.mark.parametrize("content", [b"null", b"[]", b"{}", b'{"card_version":1}', b'{"card_version":[1]}', b"7"])
def test_a_card_of_format_1_that_is_none_is_refused(content):
    with pytest.raises(FormatError):
        _format.decode_card(content, Manifest(tuple(_format.FileEntry(n, 1, "0" * 64) for n in CRITICAL), 1))


def test_there_is_a_golden_artifact_of_every_format():
    assert [path.name for path in GOLDEN] == [f"format-{n}" for n in range(1, _format.FORMAT_VERSION + 1)]


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: path.name)
def test_golden_artifacts_load_and_reproduce_their_vectors(folder):
    manifold = Manifold.read(folder)
    assert manifold.digest == DIGESTS[folder.name]
    latent = manifold.project(manifold.vectors["input"])
    np.testing.assert_allclose(latent, manifold.vectors["latent"], rtol=1e-4, atol=1e-5)
    for task in manifold.tasks:
        told = next(readout for readout in manifold.card.extraction.readouts if readout.task == task)
        read = manifold.read_out(latent, task)
        np.testing.assert_allclose(read, manifold.vectors[vector_of(told)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("folder", GOLDEN[1:], ids=lambda path: path.name)
def test_golden_artifacts_from_format_2_on_are_saved_with_the_same_digest(folder, tmp_path):
    manifold = Manifold.read(folder)
    assert f"format-{manifold.format_version}" == folder.name
    saved = manifold.save(tmp_path / "again")
    assert Manifold.read(saved).digest == manifold.digest
    assert all((saved / name).read_bytes() == (folder / name).read_bytes() for name in (MANIFEST, *CRITICAL))


def test_older_cards_have_no_plan_and_no_cell_ids():
    for folder in GOLDEN[:2]:
        old = Manifold.read(folder)
        assert (old.card.card_version, old.card.evidence) == (4, None)
        assert not any(name.endswith((".cells", ".barcodes")) for name in old.tensors)


def test_a_manifold_is_brought_to_format_2_without_what_format_3_added(tmp_path):
    new = tiny_manifold_with_everything()
    old = in_format(new, 2)
    assert in_format(new, 4) is new
    assert old.card.evidence is None
    assert sorted(set(new.tensors) - set(old.tensors)) == [
        f"panel{name}.{kind}" for name in ("", ".external") for kind in ("barcodes", "cells")
    ]
    saved = old.save(tmp_path / "old")
    document = json.loads((saved / CARD).read_bytes())
    assert document["card_version"] == 2
    assert "evidence" not in document
    assert json.loads((saved / MANIFEST).read_bytes())["format_version"] == 2
    again = Manifold.read(saved)
    assert again.digest == old.digest != new.digest
    assert in_format(again, 2).digest == old.digest


def test_a_manifold_is_brought_to_format_3_without_what_format_4_added(tmp_path):
    new = tiny_manifold_with_everything()
    old = in_format(new, 3)
    assert old.card.evidence == new.card.evidence is not None
    assert set(old.tensors) == set(new.tensors)
    document = json.loads((old.save(tmp_path / "old") / CARD).read_bytes())
    assert document["card_version"] == 3
    assert not {"programs", "scored_labels"} & document.keys()
    assert not {"kind", "interaction"} & document["ruler"].keys()
    assert not {"n_reduced", "n_landmarks", "n_pieces"} & document["extraction"]["adaptor"].keys()
    again = Manifold.read(tmp_path / "old")
    assert again.digest == old.digest != new.digest
    assert in_format(again, 3).digest == old.digest


def test_format_3_has_no_place_for_programs(tmp_path):
    old = in_format(tiny_manifold_with_everything(), 3)
    program = GeneProgram(name="cycle", label="Cycle", genes=["MKI67"], source="made")
    with pytest.raises(FormatError, match="format 3 has no field 'programs'"):
        replace(old, card=old.card.model_copy(update={"programs": [program]})).save(tmp_path / "x")


def test_format_2_has_no_place_for_a_plan(tmp_path):
    old = in_format(tiny_manifold_with_everything(), 2)
    card = old.card.model_copy(update={"evidence": EvidencePlan()})
    with pytest.raises(FormatError, match="format 2 has no field 'evidence'"):
        replace(old, card=card).save(tmp_path / "x")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_altered_format_version_is_caught(artifact, version):
    content = (artifact / MANIFEST).read_bytes()
    assert b'"format_version":4' in content
    (artifact / MANIFEST).write_bytes(content.replace(b'"format_version":4', b'"format_version":%d' % version))
    for reader in (read_verified, read_card, Manifold.read):
        with pytest.raises(FormatError, match=rf"MANIFEST\.json gives format {version}, .* card\.json"):
            reader(artifact)
    assert [check.name for check in check_files(artifact) if check.status == "changed"] == [MANIFEST]
