from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from artifacts import contents, flip, passing_run, write_tiny

from hub_server import LoopbackHub
from manifoldzoo.cards._errors import FormatError, IntegrityError, IntegrityWarning, NotFoundError, StoreError
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry._catalogue import list_manifolds
from manifoldzoo.registry._evidence_files import add_evidence
from manifoldzoo.registry._hub_index import refresh_index
from manifoldzoo.registry._index import Index, IndexEntry, index_owner, index_path, read_index
from manifoldzoo.registry._publish import publish
from manifoldzoo.registry._resolve import load
from manifoldzoo.registry._verify import verify


def entry(name: str = "tiny", version: str = "0.1.0", **changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "name": name,
        "version": version,
        "repo_id": f"zoo/{name}",
        "commit": "a" * 40,
        "digest": "b" * 64,
        "size_bytes": 1000,
        "source_model": "none",
        "rung": 3,
    }
    return made | changes


def write_index(*entries: dict[str, object], **changes: object) -> None:
    document = {"schema": 1, "updated": "2026-01-01T00:00:00Z", "owner": "zoo", "entries": list(entries)} | changes
    index_path().parent.mkdir(parents=True, exist_ok=True)
    index_path().write_text(json.dumps(document))


@pytest.fixture
def zoo(published: LoopbackHub, tmp_path: Path, quick_gates: object) -> LoopbackHub:
    """An account with two versions of one manifold, another manifold, and a repository that is not an artifact."""
    publish(write_tiny(tmp_path / "v2", version="0.2.0", title="Second"), "zoo/tiny")
    publish(write_tiny(tmp_path / "other", name="other"), "zoo/other")
    publish(write_tiny(tmp_path / "strangers", name="strangers"), "else/strangers")
    api = published.api()
    api.create_repo("zoo/notes")
    card = b"---\ntags: [manifoldzoo]\n---\n"
    api.upload_file(repo_id="zoo/notes", path_in_repo="README.md", path_or_fileobj=card)
    api.create_tag("zoo/notes", tag="v1.0.0")
    return published


class TestRefresh:
    def test_all_versions_of_an_account(self, zoo: LoopbackHub, tmp_path: Path) -> None:
        before = datetime.now(UTC)
        with pytest.warns(IntegrityWarning, match=r"zoo/notes@v1\.0\.0") as caught:
            index = refresh_index("zoo")
        assert len(caught) == 1
        assert [(e.name, e.version, e.repo_id, e.rung) for e in index.entries] == [
            ("other", "0.1.0", "zoo/other", 3),
            ("tiny", "0.1.0", "zoo/tiny", 3),
            ("tiny", "0.2.0", "zoo/tiny", 3),
        ]
        second = index.entries[2]
        assert second.digest == Manifold.read(tmp_path / "v2").digest
        assert second.commit == zoo.storage.repo("zoo/tiny").tags["v0.2.0"]
        assert second.size_bytes == sum(len(c) for n, c in contents(tmp_path / "v2").items() if n != "MANIFEST.json")
        assert read_index() == index
        assert before - timedelta(seconds=1) <= index.updated <= datetime.now(UTC)
        assert index.age_days < 1

    def test_load_by_name(self, zoo: LoopbackHub, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="other"):
            load("other")
        zoo.requests.clear()
        with pytest.raises(NotFoundError):
            load("tiny")
        assert zoo.requests == []
        with pytest.warns(IntegrityWarning):
            refresh_index("zoo")
        assert load("tiny").version == "0.2.0"
        assert load("tiny@0.1.0").version == "0.1.0"
        assert load("tiny@~0.1").version == "0.2.0"
        assert load("tiny@0.1").version == "0.1.0"
        assert load("other").digest == Manifold.read(tmp_path / "other").digest
        zoo.requests.clear()
        assert load("tiny").version == "0.2.0"
        assert zoo.requests == []
        shown = {row["version"]: row for row in list_manifolds("tiny")}
        assert shown["0.2.0"]["store"] == "hub"
        assert shown["0.2.0"]["ruler"] == "stage-graph"
        assert verify("tiny")["ok"]

    def test_a_moved_tag_changes_nothing(self, zoo: LoopbackHub, tmp_path: Path) -> None:
        with pytest.warns(IntegrityWarning):
            index = refresh_index("zoo")
        digest = {e.version: e.digest for e in index.entries if e.name == "tiny"}
        api = zoo.api()
        api.delete_tag("zoo/tiny", tag="v0.1.0")
        api.create_tag("zoo/tiny", tag="v0.1.0", revision=zoo.storage.repo("zoo/tiny").head)
        assert load("tiny@0.1.0").digest == digest["0.1.0"]

    def test_other_bytes_than_the_index_says(self, published: LoopbackHub) -> None:
        (good,) = refresh_index("zoo").entries
        write_index(good.model_dump() | {"digest": "c" * 64})
        with pytest.raises(IntegrityError, match="cccccccccccc"):
            load("tiny")
        checked = verify("tiny")
        assert not checked["ok"]
        assert [file["name"] for file in checked["files"] if file["status"] != "ok"] == ["MANIFEST.json"]

    def test_a_tag_that_holds_another_version(self, published: LoopbackHub) -> None:
        published.api().create_tag("zoo/tiny", tag="v9.9.9")
        published.api().create_tag("zoo/tiny", tag="latest")
        with pytest.warns(IntegrityWarning) as caught:
            index = refresh_index("zoo")
        assert sorted(str(warning.message).split()[0] for warning in caught) == ["zoo/tiny@latest", "zoo/tiny@v9.9.9"]
        assert [e.version for e in index.entries] == ["0.1.0"]

    def test_a_card_damaged_in_the_cache(self, published: LoopbackHub, tmp_path: Path) -> None:
        index = refresh_index("zoo")
        for name in ("card.json", "MANIFEST.json"):
            (card,) = (tmp_path / "client").glob(f"hub/models--*/snapshots/*/{name}")
            flip(card)
            assert refresh_index("zoo").entries == index.entries

    def test_a_card_damaged_on_the_hub(self, published: LoopbackHub) -> None:
        published.corrupt("zoo/tiny", "card.json")
        with pytest.warns(IntegrityWarning, match="card"):
            assert refresh_index("zoo").entries == []

    def test_forged_evidence_of_another_artifact(self, published: LoopbackHub, tmp_path: Path) -> None:
        other = Manifold.read(write_tiny(tmp_path / "other", title="Another"))
        forged = add_evidence(tmp_path / "forged", passing_run(other, rung=6))
        name = f"evidence/{forged.name}"
        published.api().upload_file(repo_id="zoo/tiny", path_in_repo=name, path_or_fileobj=forged.read_bytes())
        published.api().delete_tag("zoo/tiny", tag="v0.1.0")
        published.api().create_tag("zoo/tiny", tag="v0.1.0")
        (found,) = refresh_index("zoo").entries
        assert found.rung == 3

    def test_a_gated_repository_is_left_out(
        self, zoo: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        zoo.gate("zoo/other")
        zoo.patch_client(monkeypatch, tmp_path / "stranger", token=None)
        with pytest.warns(IntegrityWarning) as caught:
            index = refresh_index("zoo")
        assert sorted(str(warning.message).split()[0] for warning in caught) == ["zoo/notes@v1.0.0", "zoo/other@v0.1.0"]
        assert all("\n" not in str(warning.message) for warning in caught)
        assert {e.name for e in index.entries} == {"tiny"}

    def test_no_network_leaves_the_old_index(self, published: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
        index = refresh_index("zoo")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        published.fail_next(100, 500)
        with pytest.raises(StoreError):
            refresh_index("zoo")
        published.heal()
        published.stop()
        with pytest.raises(StoreError):
            refresh_index("zoo")
        assert read_index() == index

    def test_a_network_lost_half_way_loses_no_entry(
        self, published: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index = refresh_index("zoo")
        shutil.rmtree(tmp_path / "client")
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        listed = published.api().list_repo_refs("zoo/tiny")

        def then_stop(self: object, repo_id: str) -> object:
            published.stop()
            return listed

        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", then_stop)
        with pytest.raises(StoreError):
            refresh_index("zoo")
        assert read_index() == index

    def test_an_account_without_manifolds(self, hub: LoopbackHub) -> None:
        assert refresh_index("nobody").entries == []

    def test_the_account(self, published: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
        assert index_owner() == "manifoldzoo"
        monkeypatch.setenv("MANIFOLDZOO_INDEX_OWNER", "zoo")
        assert refresh_index().owner == "zoo"


class TestRead:
    def test_the_bundled_one(self) -> None:
        assert not index_path().exists()
        index = read_index()
        assert index.owner == "manifoldzoo"
        assert index.age_days > -1000

    def test_age(self) -> None:
        index = Index(schema=1, updated=datetime.now(UTC) - timedelta(days=3), owner="zoo", entries=[])
        assert index.age_days == pytest.approx(3, abs=0.01)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"schema": 1}',
            b'{"schema": 2, "updated": "2026-01-01T00:00:00Z", "owner": "zoo", "entries": []}',
            b'{"schema": 1, "updated": "2026-01-01T00:00:00", "owner": "zoo", "entries": []}',
            b'{"schema": 1, "updated": "2026-01-01T00:00:00Z", "owner": "zoo", "entries": [{"name": "tiny"}]}',
            b'{"schema": 1, "updated": "2026-01-01T00:00:00Z", "owner": "zoo", "entries": [], "more": 1}',
        ],
    )
    def test_damaged(self, content: bytes) -> None:
        index_path().parent.mkdir(parents=True)
        index_path().write_bytes(content)
        for use in (read_index, list_manifolds, lambda: load("tiny")):
            with pytest.raises(FormatError, match=r"index\.json") as caught:
                use()
            assert "manifoldzoo update" in caught.value.hint

    @pytest.mark.parametrize(
        "change",
        [{"name": "../x"}, {"version": "1"}, {"commit": "main"}, {"digest": "0"}, {"rung": "high"}],
    )
    def test_damaged_entries(self, change: dict[str, object]) -> None:
        IndexEntry.model_validate(entry())
        write_index(entry(**change))
        with pytest.raises(FormatError):
            read_index()


def test_an_index_that_does_not_tell_rulers_is_read(own_folders: Path) -> None:
    assert "ruler" not in entry()
    write_index(entry())
    (row,) = [row for row in list_manifolds("tiny") if row["store"] == "hub"]
    assert row["ruler"] is None
