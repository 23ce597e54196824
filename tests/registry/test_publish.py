from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import FILES, contents, flip, passing_run, write_tiny

from hub_server import LoopbackHub
from manifoldzoo.cards._errors import (
    BadInputError,
    FormatError,
    GateError,
    IntegrityError,
    IntegrityWarning,
    NotFoundError,
    PermissionDeniedError,
    ReferenceSyntaxError,
    StaleParentError,
    StoreError,
    UnsafeFileError,
    VersionConflictError,
)
from manifoldzoo.cards._evidence import EvidenceRun, rung_reached
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry import _folders, _publish
from manifoldzoo.registry._catalogue import info
from manifoldzoo.registry._evidence_files import add_evidence, highest_rung, read_evidence
from manifoldzoo.registry._publish import publish
from manifoldzoo.registry._resolve import load

REPO = "zoo/tiny"
Gates = Callable[[int], list[str]]


@pytest.fixture
def mine(artifact: Path, tmp_path: Path) -> Path:
    """A copy of the artifact that may be changed."""
    return Path(shutil.copytree(artifact, tmp_path / "mine"))


@pytest.fixture
def store(own_folders: Path) -> Path:
    return own_folders / "zoo" / "store"


class TestGates:
    def test_below_rung_3_with_the_real_gates(self, hub: LoopbackHub, artifact: Path, store: Path) -> None:
        for to in ("local", REPO):
            with pytest.raises(GateError, match=r"tiny@0\.1\.0.*rung 3 fail: .*trustworthiness") as caught:
                publish(artifact, to)
            assert caught.value.exit_code == 1
        assert not store.exists()
        assert not hub.storage.repos()
        assert not [request for request in hub.requests if request.method != "GET"]

    def test_the_reason_is_recorded_for_good(self, artifact: Path) -> None:
        made = publish(artifact, "local", allow_below="a made-up geometry")
        assert made.evidence.allowed_below == "a made-up geometry"
        (run,) = read_evidence(Path(made.location), made.digest)
        assert run == made.evidence
        assert rung_reached(run.rungs) == 2
        assert "a made-up geometry" in (Path(made.location) / "README.md").read_text()
        assert info("tiny")["evidence"][0]["allowed_below"] == "a made-up geometry"
        assert info("tiny")["rung"] == 2

    @pytest.mark.parametrize("reason", ["", "  "])
    def test_an_empty_reason_is_none(self, artifact: Path, quick_gates: Gates, store: Path, reason: str) -> None:
        asked = quick_gates(2)
        with pytest.raises(BadInputError):
            publish(artifact, "local", allow_below=reason)
        assert not asked
        assert not store.exists()

    def test_no_reason_is_recorded_where_none_is_needed(self, artifact: Path, quick_gates: Gates) -> None:
        assert publish(artifact, "local", allow_below="in case").evidence.allowed_below is None

    @pytest.mark.parametrize("rung", [0, 1, 2])
    def test_evidence_beside_the_artifact_is_not_trusted(
        self, mine: Path, quick_gates: Gates, store: Path, rung: int
    ) -> None:
        forged = add_evidence(mine, passing_run(Manifold.read(mine), rung=6))
        quick_gates(rung)
        with pytest.raises(GateError):
            publish(mine, "local")
        assert not store.exists()
        with pytest.warns(IntegrityWarning, match=forged.name):
            made = publish(mine, "local", allow_below="on purpose")
        assert highest_rung(Path(made.location), made.digest) == rung
        assert forged.exists()

    def test_evidence_that_agrees_is_carried_along(self, mine: Path, quick_gates: Gates) -> None:
        digest = Manifold.read(mine).digest
        earlier = add_evidence(mine, passing_run(Manifold.read(mine)))
        made = publish(mine, "local")
        assert len(read_evidence(Path(made.location), digest)) == 2
        assert (Path(made.location) / "evidence" / earlier.name).read_bytes() == earlier.read_bytes()

    def test_as_many_rungs_are_computed_as_are_claimed(
        self, mine: Path, monkeypatch: pytest.MonkeyPatch, store: Path
    ) -> None:
        add_evidence(mine, passing_run(Manifold.read(mine), rung=5))
        asked = []

        def validate(manifold: Manifold, *, through: int, **_: object) -> EvidenceRun:
            asked.append(through)
            return passing_run(manifold, rung=4, through=through)

        monkeypatch.setattr(_publish, "validate", validate)
        with pytest.warns(IntegrityWarning):
            made = publish(mine, "local")
        assert asked == [5]
        assert highest_rung(Path(made.location), made.digest) == 4

    def test_the_source_stays_as_it_was(self, mine: Path, quick_gates: Gates) -> None:
        before = contents(mine)
        publish(mine, "local")
        assert contents(mine) == before

    def test_an_artifact_changed_during_the_gates(
        self, mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Path
    ) -> None:
        other = write_tiny(tmp_path / "other", title="Another")

        def validate(manifold: Manifold, **options: object) -> object:
            shutil.copytree(other, mine, dirs_exist_ok=True)
            return passing_run(manifold)

        monkeypatch.setattr(_publish, "validate", validate)
        with pytest.raises(GateError, match="changed"):
            publish(mine, "local")
        assert not store.exists()


class TestSource:
    def test_a_damaged_one(self, mine: Path, quick_gates: Gates, store: Path) -> None:
        flip(mine / "genes.tsv")
        with pytest.raises(IntegrityError, match=r"genes\.tsv"):
            publish(mine, "local")
        assert not store.exists()

    def test_one_with_a_pickle(self, mine: Path, quick_gates: Gates) -> None:
        (mine / "model.pkl").write_bytes(b"\x80\x04N.")
        with pytest.raises(UnsafeFileError, match=r"model\.pkl"):
            publish(mine, "local")

    def test_one_with_malformed_evidence(self, mine: Path, quick_gates: Gates, store: Path) -> None:
        (mine / "evidence").mkdir()
        (mine / "evidence" / "x.json").write_text('{"rung": 6}')
        with pytest.raises(FormatError, match=r"x\.json"):
            publish(mine, "local")
        assert not store.exists()

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="nothing"):
            publish(tmp_path / "nothing", "local")

    @pytest.mark.parametrize("to", ["nowhere", "./folder", "zoo/tiny@0.1.0", "bundled", "a/b/c", ""])
    def test_no_place(self, artifact: Path, quick_gates: Gates, to: str) -> None:
        asked = quick_gates(3)
        with pytest.raises(ReferenceSyntaxError):
            publish(artifact, to)
        assert not asked


class TestLocal:
    def test_round_trip(self, artifact: Path, quick_gates: Gates, store: Path) -> None:
        made = publish(artifact, "local")
        assert made.location == str(store / "tiny" / "0.1.0")
        assert (made.reference, made.commit) == ("tiny@0.1.0", "")
        assert load("tiny").digest == load("tiny@0.1.0").digest == made.digest == Manifold.read(artifact).digest
        stored = contents(Path(made.location))
        assert {name: stored[name] for name in FILES} == contents(artifact)
        assert set(stored) - set(FILES) == {
            "README.md",
            *(name for name in stored if name.startswith("evidence/")),
        }

    def test_an_existing_version_is_refused_before_any_gate(
        self, mine: Path, tmp_path: Path, quick_gates: Gates, store: Path
    ) -> None:
        publish(mine, "local")
        before, asked = contents(store), quick_gates(3)
        asked.clear()
        for folder in (mine, write_tiny(tmp_path / "other", title="Another")):
            with pytest.raises(VersionConflictError, match=r"tiny@0\.1\.0") as caught:
                publish(folder, "local")
            assert caught.value.exit_code == 3
        assert not asked
        assert contents(store) == before
        publish(write_tiny(tmp_path / "next", version="0.1.1"), "local")
        assert load("tiny").version == "0.1.1"

    def test_a_bundled_version_is_refused(
        self, artifact: Path, tmp_path: Path, quick_gates: Gates, monkeypatch: pytest.MonkeyPatch, store: Path
    ) -> None:
        bundled = _folders.FolderStore("bundled", tmp_path / "bundled")
        bundled.put(artifact, "tiny", "0.1.0")
        monkeypatch.setattr(_publish, "bundled_store", lambda: bundled)
        with pytest.raises(VersionConflictError, match="bundled"):
            publish(write_tiny(tmp_path / "other", title="Another"), "local")
        assert not store.exists()

    def test_a_store_below_a_file(
        self, artifact: Path, quick_gates: Gates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("MANIFOLDZOO_HOME", str(tmp_path / "file"))
        with pytest.raises(StoreError, match="file"):
            publish(artifact, "local")


class TestHub:
    def test_a_second_version_replaces_the_first(
        self, published: LoopbackHub, mine: Path, tmp_path: Path, quick_gates: Gates
    ) -> None:
        (mine / "figures").mkdir()
        (mine / "figures" / "map.png").write_bytes(b"png")
        for version, with_figure in (("0.2.0", True), ("0.3.0", False)):
            folder = write_tiny(tmp_path / version, version=version)
            if with_figure:
                shutil.copytree(mine / "figures", folder / "figures")
            publish(folder, REPO)
            assert ("figures/map.png" in published.storage.resolve(REPO, "main").tree) == with_figure
        assert "figures/map.png" in published.storage.resolve(REPO, "v0.2.0").tree
        assert set(published.storage.repo(REPO).tags) == {"v0.1.0", "v0.2.0", "v0.3.0"}
        assert len(list(published.storage.history(REPO))) == 4

    def test_a_tagged_version_is_refused_before_any_gate(
        self, published: LoopbackHub, artifact: Path, quick_gates: Gates
    ) -> None:
        asked, head = quick_gates(3), published.storage.repo(REPO).head
        with pytest.raises(VersionConflictError, match=r"0\.1\.0"):
            publish(artifact, REPO)
        assert not asked
        assert published.storage.repo(REPO).head == head

    def test_somebody_commits_meanwhile(
        self, published: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def validate(manifold: Manifold, **options: object) -> object:
            published.api().upload_file(repo_id=REPO, path_in_repo="genes.tsv", path_or_fileobj=b"theirs")
            return passing_run(manifold)

        monkeypatch.setattr(_publish, "validate", validate)
        with pytest.raises(StaleParentError, match=REPO) as caught:
            publish(write_tiny(tmp_path / "next", version="0.2.0"), REPO)
        assert caught.value.exit_code == 3
        repo = published.storage.repo(REPO)
        assert set(repo.tags) == {"v0.1.0"}
        assert published.storage.resolve(REPO, "main").tree["genes.tsv"].size == len(b"theirs")

    def test_somebody_creates_the_repository_meanwhile(
        self, hub: LoopbackHub, artifact: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def validate(manifold: Manifold, **options: object) -> object:
            hub.api().create_repo(REPO)
            return passing_run(manifold)

        monkeypatch.setattr(_publish, "validate", validate)
        with pytest.raises(StaleParentError, match=REPO):
            publish(artifact, REPO)
        assert set(hub.storage.resolve(REPO, "main").tree) == {".gitattributes"}

    def test_somebody_tags_the_version_meanwhile(
        self, published: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def validate(manifold: Manifold, **options: object) -> object:
            published.api().create_tag(REPO, tag="v0.2.0")
            return passing_run(manifold)

        monkeypatch.setattr(_publish, "validate", validate)
        before = published.storage.repo(REPO).tags["v0.1.0"]
        with pytest.raises(VersionConflictError, match=r"0\.2\.0"):
            publish(write_tiny(tmp_path / "next", version="0.2.0"), REPO)
        assert published.storage.repo(REPO).tags["v0.2.0"] == before

    @pytest.mark.parametrize("token", [None, "read", "made-up"])
    @pytest.mark.parametrize("exists", [True, False])
    def test_who_may_not_write(
        self,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        quick_gates: Gates,
        token: str | None,
        exists: bool,
    ) -> None:
        hub: LoopbackHub = request.getfixturevalue("published" if exists else "hub")
        asked = quick_gates(3)
        hub.patch_client(monkeypatch, tmp_path / "stranger", token=hub.read_token if token == "read" else token)
        with pytest.raises(PermissionDeniedError, match=REPO) as caught:
            publish(write_tiny(tmp_path / "next", version="0.2.0"), REPO)
        assert caught.value.exit_code == 3
        assert not asked
        assert [repo.id for repo in hub.storage.repos()] == ([REPO] if exists else [])

    def test_a_repository_of_another_name(self, published: LoopbackHub, tmp_path: Path, quick_gates: Gates) -> None:
        head = published.storage.repo(REPO).head
        with pytest.raises(VersionConflictError, match="'tiny', not 'other'"):
            publish(write_tiny(tmp_path / "other", name="other", version="0.2.0"), REPO)
        assert published.storage.repo(REPO).head == head

    def test_a_repository_of_something_else(self, hub: LoopbackHub, artifact: Path, quick_gates: Gates) -> None:
        hub.api().create_repo(REPO)
        hub.api().upload_file(repo_id=REPO, path_in_repo="model.safetensors", path_or_fileobj=b"precious")
        with pytest.raises(BadInputError, match=r"model\.safetensors"):
            publish(artifact, REPO)
        assert "model.safetensors" in hub.storage.resolve(REPO, "main").tree

    def test_an_empty_repository_made_before(self, hub: LoopbackHub, artifact: Path, quick_gates: Gates) -> None:
        hub.api().create_repo(REPO, private=True)
        publish(artifact, REPO)
        assert hub.storage.repo(REPO).private
        assert load(f"{REPO}@0.1.0").name == "tiny"

    def test_no_network(self, hub: LoopbackHub, artifact: Path, quick_gates: Gates) -> None:
        asked = quick_gates(3)
        hub.stop()
        with pytest.raises(StoreError) as caught:
            publish(artifact, REPO)
        assert caught.value.exit_code == 3
        assert not asked

    def test_offline(self, hub: LoopbackHub, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(StoreError, match="HF_HUB_OFFLINE"):
            publish(artifact, REPO)
        assert not hub.requests

    def test_a_hub_in_trouble(
        self, hub: LoopbackHub, artifact: Path, quick_gates: Gates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        hub.fail_next(100, 500)
        with pytest.raises(StoreError, match="500"):
            publish(artifact, REPO)
        assert not hub.storage.repos()

    def test_metadata_for_search(self, published: LoopbackHub) -> None:
        (model,) = published.api().list_models(filter="manifoldzoo")
        assert model.id == REPO
        assert {"single-cell", "tiny", "license:bsd-3-clause"} <= set(model.tags)
        evidence = next(name for name in published.storage.resolve(REPO, "main").tree if name.startswith("evidence/"))
        blob = published.storage.blob(published.storage.resolve(REPO, "main").tree[evidence].sha256)
        assert json.loads(blob.read_bytes())["evidence_version"] == 1
