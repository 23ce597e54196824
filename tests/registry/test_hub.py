from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from artifacts import FILES, contents, flip, write_tiny

from hub_server import LoopbackHub, serve
from manifoldzoo.cards._errors import (
    FormatError,
    IntegrityError,
    IntegrityWarning,
    NotFoundError,
    PermissionDeniedError,
    StoreError,
    UnsafeFileError,
)
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry._hub import fetch
from manifoldzoo.registry._publish import publish
from manifoldzoo.registry._reference import HubReference
from manifoldzoo.registry._resolve import load

REPO = "zoo/tiny"
PINNED = f"{REPO}@0.1.0"
TENSORS = "manifold.safetensors"


@pytest.fixture
def client(tmp_path: Path) -> Path:
    """Folder of the client's cache."""
    return tmp_path / "client"


def cached(client: Path, name: str) -> Path:
    """A file of the one snapshot in the cache."""
    (found,) = client.glob(f"hub/models--zoo--tiny/snapshots/*/{name}")
    return found


def load_elsewhere(hub: LoopbackHub, client: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load in a fresh interpreter, whose client reads its settings from the environment alone."""
    code = f"import manifoldzoo as mz; print(mz.load({PINNED!r}).digest)"
    return subprocess.run(
        [sys.executable, "-c", code],
        env=hub.environment(client) | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class TestRoundTrip:
    @pytest.mark.parametrize("mode", ["auto", "regular", "lfs"])
    def test_one_commit_and_the_same_bytes(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        artifact: Path,
        quick_gates: object,
        mode: str,
        client: Path,
    ) -> None:
        with serve(tmp_path / "served", upload_mode=mode) as hub:  # type: ignore[arg-type]
            hub.patch_client(monkeypatch, tmp_path / "publisher")
            made = publish(artifact, f"hf://{REPO}")
            commits = [path for method, path in hub.requests if method == "POST" and "/commit/" in path]
            assert commits == [f"/api/models/{REPO}/commit/main"]
            stored = hub.storage.resolve(REPO, "main")
            assert hub.storage.repo(REPO).tags == {"v0.1.0": stored.oid}
            assert set(stored.tree) > {*FILES, "README.md", ".gitattributes"}
            assert sum(name.startswith("evidence/") for name in stored.tree) == 1
            assert made.commit == stored.oid
            assert made.reference == PINNED

            hub.patch_client(monkeypatch, client, token=None)
            manifold = load(made.reference)
            assert manifold.digest == made.digest == Manifold.read(artifact).digest
            assert {name: cached(client, name).read_bytes() for name in FILES} == contents(artifact)

            hub.requests.clear()
            offline = load_elsewhere(hub, client, HF_HUB_OFFLINE="1")
            assert offline.stdout.strip() == made.digest, offline.stderr
            assert hub.requests == []

    def test_pinned_and_cached_touches_no_network(self, published: LoopbackHub) -> None:
        commit = published.storage.repo(REPO).head
        first = load(PINNED)
        n_requests = len(published.requests)
        assert n_requests > 0
        for reference in (PINNED, f"{REPO}@v0.1.0", f"{REPO}@{commit}", f"hf://{PINNED}"):
            assert load(reference).digest == first.digest
        assert len(published.requests) == n_requests
        load(REPO)
        assert len(published.requests) > n_requests

    def test_a_branch_follows_the_head(self, published: LoopbackHub, tmp_path: Path, quick_gates: object) -> None:
        assert load(REPO).version == "0.1.0"
        publish(write_tiny(tmp_path / "next", version="0.2.0"), REPO)
        assert load(REPO).version == "0.2.0"
        assert load(PINNED).version == "0.1.0"
        assert load(REPO, offline=True).version == "0.2.0"

    def test_everything_brings_evidence_and_readme(self, published: LoopbackHub) -> None:
        plain = fetch(HubReference(REPO, "0.1.0"))
        assert set(contents(plain.folder)) == set(FILES)
        whole = fetch(HubReference(REPO, "0.1.0"), everything=True)
        assert {name.split("/")[0] for name in contents(whole.folder)} == {*FILES, "README.md", "evidence"}
        published.requests.clear()
        fetch(HubReference(REPO, "0.1.0"), everything=True)
        assert published.requests == []

    def test_a_token_opens_a_private_repository(
        self, published: LoopbackHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        published.api().update_repo_settings(REPO, private=True)
        published.patch_client(monkeypatch, tmp_path / "reader", token=published.read_token)
        assert load(PINNED).name == "tiny"


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "kind"),
        [*((name, "flipped") for name in FILES), *((TENSORS, kind) for kind in ("truncated", "emptied", "longer"))],
    )
    def test_damaged_cache_is_repaired_once(
        self, published: LoopbackHub, client: Path, artifact: Path, name: str, kind: str
    ) -> None:
        digest = load(PINNED).digest
        path = cached(client, name).resolve()
        good = path.read_bytes()
        if kind == "flipped":
            flip(path)
        else:
            path.write_bytes({"truncated": good[:-1], "emptied": b"", "longer": good + b"\n"}[kind])
        bad = path.read_bytes()
        with pytest.warns(IntegrityWarning, match=name) as caught:
            manifold = load(PINNED)
        assert len(caught) == 1
        assert manifold.digest == digest
        assert {name: cached(client, name).read_bytes() for name in FILES} == contents(artifact)
        (kept,) = client.glob("hub/models--zoo--tiny/quarantine/*")
        assert kept.name.startswith(name)
        assert kept.read_bytes() == bad
        published.requests.clear()
        assert load(PINNED).digest == digest
        assert published.requests == []

    @pytest.mark.parametrize("at", [10, 120, 200, -3])
    def test_a_flipped_byte_anywhere_in_the_manifest_is_repaired(
        self, published: LoopbackHub, client: Path, at: int
    ) -> None:
        digest = load(PINNED).digest
        flip(cached(client, "MANIFEST.json"), at)
        with pytest.warns(IntegrityWarning, match="MANIFEST"):
            assert load(PINNED).digest == digest

    def test_a_deleted_blob_is_fetched_again(self, published: LoopbackHub, client: Path) -> None:
        digest = load(PINNED).digest
        cached(client, TENSORS).resolve().unlink()
        with pytest.raises(StoreError):
            load(PINNED, offline=True)
        assert load(PINNED).digest == digest

    def test_offline_it_is_named_again_and_again(self, published: LoopbackHub, client: Path) -> None:
        digest = load(PINNED).digest
        flip(cached(client, TENSORS))
        for _ in range(2):
            with pytest.raises(IntegrityError, match=TENSORS) as caught:
                load(PINNED, offline=True)
            assert caught.value.files == (TENSORS,)
            assert caught.value.exit_code == 1
        for _ in range(2):
            failed = load_elsewhere(published, client, HF_HUB_OFFLINE="1")
            assert failed.returncode == 1
            assert "IntegrityError" in failed.stderr
            assert TENSORS in failed.stderr
            assert digest not in failed.stdout

    def test_without_a_network_it_is_named_and_kept(self, published: LoopbackHub, client: Path) -> None:
        load(PINNED)
        flip(cached(client, TENSORS))
        bad = cached(client, TENSORS).read_bytes()
        published.stop()
        for _ in range(2):
            with pytest.raises(IntegrityError, match=TENSORS):
                load(PINNED)
        assert cached(client, TENSORS).read_bytes() == bad

    @pytest.mark.parametrize("name", [TENSORS, "card.json", "genes.tsv"])
    def test_a_hub_that_serves_wrong_bytes(self, published: LoopbackHub, name: str) -> None:
        published.corrupt(REPO, name)
        for _ in range(2):
            published.requests.clear()
            with pytest.raises(IntegrityError, match=name) as caught:
                load(PINNED)
            assert caught.value.files == (name,)
            downloads = [path for method, path in published.requests if method == "GET" and path.endswith(name)]
            assert len(downloads) <= 2
        published.heal()
        with pytest.warns(IntegrityWarning, match=name):
            load(PINNED)

    def test_a_hub_that_serves_a_wrong_manifest(self, published: LoopbackHub) -> None:
        published.corrupt(REPO, "MANIFEST.json")
        with pytest.raises((IntegrityError, FormatError)):
            load(PINNED)
        published.heal()
        with pytest.warns(IntegrityWarning, match="MANIFEST"):
            load(PINNED)

    def test_warnings_as_errors_do_not_prevent_the_repair(self, published: LoopbackHub, client: Path) -> None:
        digest = load(PINNED).digest
        flip(cached(client, TENSORS))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(IntegrityWarning):
                load(PINNED)
        assert load(PINNED).digest == digest


@pytest.fixture
def frozen(tmp_path: Path) -> object:
    """Make a folder read-only even for root, with a bind mount; skip where mounting is not permitted."""
    mounted: list[Path] = []

    def freeze(folder: Path) -> None:
        for options in (["--bind"], ["-o", "remount,bind,ro"]):
            done = subprocess.run(["mount", *options, str(folder), str(folder)], capture_output=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"mounting is not permitted here: {done.stderr.decode().strip()}")
            if options == ["--bind"]:
                mounted.append(folder)

    yield freeze
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


class TestCacheThatCannotBeWritten:
    def test_sound(self, published: LoopbackHub, client: Path, frozen: Callable[[Path], None]) -> None:
        digest = load(PINNED).digest
        frozen(client / "hub")
        published.requests.clear()
        assert load(PINNED).digest == digest
        assert published.requests == []

    def test_damaged(
        self, published: LoopbackHub, client: Path, own_folders: Path, frozen: Callable[[Path], None]
    ) -> None:
        digest = load(PINNED).digest
        flip(cached(client, TENSORS))
        frozen(client / "hub")
        with pytest.warns(IntegrityWarning, match="repaired"):
            assert load(PINNED).digest == digest
        assert list((own_folders / "zoo" / "repaired").glob("models--*"))
        published.requests.clear()
        assert load(PINNED).digest == digest
        assert load(PINNED, offline=True).digest == digest
        assert published.requests == []

    def test_damaged_and_offline(self, published: LoopbackHub, client: Path, frozen: Callable[[Path], None]) -> None:
        load(PINNED)
        flip(cached(client, TENSORS))
        frozen(client / "hub")
        with pytest.raises(IntegrityError, match=TENSORS):
            load(PINNED, offline=True)

    def test_damaged_where_the_hub_serves_wrong_bytes_too(
        self, published: LoopbackHub, client: Path, frozen: Callable[[Path], None]
    ) -> None:
        load(PINNED)
        flip(cached(client, TENSORS))
        frozen(client / "hub")
        published.corrupt(REPO, TENSORS)
        with pytest.raises(IntegrityError, match=TENSORS):
            load(PINNED)

    def test_empty(self, published: LoopbackHub, client: Path, frozen: Callable[[Path], None]) -> None:
        (client / "hub").mkdir(parents=True)
        frozen(client / "hub")
        with pytest.raises(StoreError) as caught:
            load(PINNED)
        assert caught.value.exit_code == 3

    def test_below_a_regular_file(
        self, published: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        published.patch_client(monkeypatch, tmp_path / "file")
        with pytest.raises(StoreError, match="file") as caught:
            load(PINNED)
        assert caught.value.exit_code == 3

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_without_permission(self, published: LoopbackHub, client: Path) -> None:
        (client / "hub").mkdir(parents=True)
        (client / "hub").chmod(0o500)
        with pytest.raises(PermissionDeniedError):
            load(PINNED)


class TestRefusals:
    def test_no_network(self, published: LoopbackHub) -> None:
        published.stop()
        for reference in (PINNED, REPO):
            with pytest.raises(StoreError) as caught:
                load(reference)
            assert caught.value.exit_code == 3

    def test_no_network_is_never_an_old_version_in_silence(self, published: LoopbackHub) -> None:
        load(REPO)
        published.stop()
        with pytest.raises(StoreError, match=REPO):
            load(REPO)
        assert load(REPO, offline=True).version == "0.1.0"

    def test_offline_and_not_cached(self, published: LoopbackHub) -> None:
        with pytest.raises(StoreError, match=REPO):
            load(PINNED, offline=True)
        assert published.requests == []

    @pytest.mark.parametrize("reference", ["zoo/none@0.1.0", f"{REPO}@9.9.9", f"{REPO}@nothing", f"{REPO}@{'0' * 40}"])
    def test_unknown(self, published: LoopbackHub, reference: str) -> None:
        with pytest.raises(NotFoundError) as caught:
            load(reference)
        assert reference in caught.value.message
        assert caught.value.exit_code == 3

    def test_private(self, published: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        published.api().update_repo_settings(REPO, private=True)
        published.patch_client(monkeypatch, tmp_path / "stranger", token=None)
        with pytest.raises(NotFoundError, match=REPO):
            load(PINNED)

    @pytest.mark.parametrize("who", ["anonymous", "reader"])
    def test_gated(self, published: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
        published.gate(REPO)
        token = None if who == "anonymous" else published.read_token
        published.patch_client(monkeypatch, tmp_path / "stranger", token=token)
        with pytest.raises(PermissionDeniedError, match=REPO):
            load(PINNED)

    def test_unknown_token(self, published: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        published.patch_client(monkeypatch, tmp_path / "stranger", token="made-up")
        with pytest.raises((PermissionDeniedError, NotFoundError)) as caught:
            load(PINNED)
        assert caught.value.exit_code == 3

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_a_hub_in_trouble(self, published: LoopbackHub, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
        # the client waits between its attempts
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        published.fail_next(100, status)
        with pytest.raises(StoreError) as caught:
            load(PINNED)
        assert caught.value.exit_code == 3

    @pytest.mark.parametrize(
        "files", [{"config.json": b"{}"}, {}, {"model.safetensors": b"0", "README.md": b"---\nlicense: mit\n---\n"}]
    )
    def test_not_an_artifact(self, hub: LoopbackHub, files: dict[str, bytes]) -> None:
        hub.api().create_repo("zoo/other")
        for name, content in files.items():
            hub.api().upload_file(repo_id="zoo/other", path_in_repo=name, path_or_fileobj=content)
        with pytest.raises(FormatError, match="zoo/other"):
            load("zoo/other")

    def test_an_artifact_that_lacks_a_file(self, published: LoopbackHub) -> None:
        published.api().delete_file("genes.tsv", REPO)
        with pytest.raises((FormatError, IntegrityError), match=r"genes\.tsv"):
            load(REPO)

    @pytest.mark.parametrize("name", ["model.pkl", "weights/pytorch_model.bin", "evidence/run.pt", "setup.py"])
    def test_a_pickle_beside_the_artifact(self, published: LoopbackHub, client: Path, name: str) -> None:
        published.api().upload_file(repo_id=REPO, path_in_repo=name, path_or_fileobj=b"\x80\x04N.")
        published.requests.clear()
        with pytest.raises(UnsafeFileError, match=name):
            load(REPO)
        assert not [path for _, path in published.requests if "/resolve/" in path]
        assert load(PINNED).name == "tiny"

    def test_a_pickle_that_another_program_put_into_the_cache(self, published: LoopbackHub) -> None:
        published.api().upload_file(repo_id=REPO, path_in_repo="model.pkl", path_or_fileobj=b"\x80\x04N.")
        huggingface_hub.snapshot_download(REPO)
        with pytest.raises(UnsafeFileError, match=r"model\.pkl"):
            load(REPO, offline=True)

    def test_an_unknown_file_beside_the_artifact(self, published: LoopbackHub) -> None:
        published.api().upload_file(repo_id=REPO, path_in_repo="notes.txt", path_or_fileobj=b"x")
        with pytest.raises(FormatError, match=r"notes\.txt"):
            load(REPO)

    def test_a_link_out_of_the_cache(self, published: LoopbackHub, client: Path, tmp_path: Path) -> None:
        load(PINNED)
        link = cached(client, "genes.tsv")
        (tmp_path / "secret").write_bytes(link.read_bytes())
        link.unlink()
        link.symlink_to(tmp_path / "secret")
        with pytest.raises(UnsafeFileError, match=r"genes\.tsv"):
            load(PINNED)

    def test_a_future_format(self, published: LoopbackHub) -> None:
        manifest = json.dumps({"files": [], "format_version": 99}).encode()
        published.api().upload_file(repo_id=REPO, path_in_repo="MANIFEST.json", path_or_fileobj=manifest)
        with pytest.raises(FormatError, match="99"):
            load(REPO)
