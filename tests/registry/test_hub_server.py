"""The loopback hub, tried with the real client over a real socket."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, constants
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from safetensors.numpy import save

import hub_server
from hub_server import LoopbackHub, serve

REPO = "zoo/demo"
TENSORS = save({"operator": np.arange(4000, dtype=np.float32).reshape(50, 80), "bias": np.ones(3, np.float32)})
ROUND_TRIP = Path(hub_server.__file__).parent / "round_trip.py"


@pytest.fixture(autouse=True)
def _no_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with serve(tmp_path / "hub") as served:
        yield served


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    """A client of a hub with one repository."""
    client = hub.api()
    client.create_repo(REPO)
    return client


def add(api: HfApi, files: dict[str, bytes], *, parent: str | None = None, message: str = "files") -> str:
    """Commit files; return the commit id."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    oid: str = api.create_commit(REPO, operations, commit_message=message, parent_commit=parent).oid
    return oid


def status_of(call: Callable[[], object]) -> int:
    """Return the HTTP status with which a call of the client fails."""
    with pytest.raises(HfHubHTTPError) as caught:
        call()
    return int(caught.value.response.status_code)


def ask(
    hub: LoopbackHub, method: str, path: str, *, body: bytes | None = None, **headers: str
) -> tuple[int, Message, bytes]:
    """Send one request without the client, which would refuse to send some of them."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(hub.url + path, data=body, method=method, headers=named)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def contents(folder: str) -> dict[str, bytes]:
    """Return every file below a folder, without what the hub added itself."""
    root = Path(folder)
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != ".gitattributes"}


class TestRepositories:
    def test_create_twice(self, hub: LoopbackHub, api: HfApi) -> None:
        assert status_of(lambda: api.create_repo(REPO)) == 409
        again = api.create_repo(REPO, exist_ok=True)
        assert (again.repo_id, again.url) == (REPO, f"{hub.url}/{REPO}")

    def test_new_repository_holds_gitattributes_only(self, api: HfApi) -> None:
        assert api.list_repo_files(REPO) == [".gitattributes"]
        assert [commit.title for commit in api.list_repo_commits(REPO)] == ["initial commit"]

    def test_delete(self, api: HfApi) -> None:
        api.delete_repo(REPO)
        assert not api.repo_exists(REPO)
        with pytest.raises(RepositoryNotFoundError):
            api.delete_repo(REPO)
        api.delete_repo(REPO, missing_ok=True)

    @pytest.mark.parametrize("name", ["zoo/..", "../zoo", "zoo/a..b", "zoo/-a", "zoo/a b"])
    def test_malformed_name(self, hub: LoopbackHub, name: str) -> None:
        namespace, _, repository = name.partition("/")
        body = json.dumps({"organization": namespace, "name": repository}).encode()
        bearer = f"Bearer {hub.token}"
        assert ask(hub, "POST", "/api/repos/create", body=body, Authorization=bearer)[0] == 400
        assert hub.storage.repos() == []

    def test_only_models(self, api: HfApi) -> None:
        assert status_of(lambda: api.create_repo("zoo/cells", repo_type="dataset")) == 400

    def test_lists(self, hub: LoopbackHub, api: HfApi) -> None:
        card = b"---\nlibrary_name: manifoldzoo\nlicense: mit\ntags: [single-cell, blood]\n---\n# Demo\n"
        add(api, {"README.md": card})
        api.create_repo("other/demo-two")
        api.create_repo("other/hidden", private=True)

        def found(client: HfApi = api, **query: Any) -> list[str]:
            return [model.id for model in client.list_models(**query)]

        assert found() == ["other/demo-two", "other/hidden", REPO]
        assert found(hub.api(token=None)) == ["other/demo-two", REPO]
        assert found(search="DEMO") == ["other/demo-two", REPO]
        assert found(search="demo", limit=1) == ["other/demo-two"]
        assert found(author="zoo") == [REPO]
        assert found(filter="manifoldzoo") == found(filter=["blood", "license:mit"]) == [REPO]
        assert found(filter=["blood", "liver"]) == []

    def test_info(self, api: HfApi) -> None:
        first = add(api, {"README.md": b"---\nlicense: mit\n---\n", "w.safetensors": TENSORS})
        api.create_tag(REPO, tag="v1")
        second = add(api, {"b.txt": b"b"})
        assert api.model_info(REPO).sha == api.model_info(REPO, revision="main").sha == second
        for revision in ("v1", first, first[:7]):
            info = api.model_info(REPO, revision=revision, files_metadata=True)
            assert info.sha == first
            assert info.card_data is not None
            assert info.card_data.license == "mit"
            large = {file.rfilename: file for file in info.siblings or []}["w.safetensors"]
            assert large.size == len(TENSORS)
            assert large.lfs is not None
            assert large.lfs.sha256 == hashlib.sha256(TENSORS).hexdigest()

    def test_card_with_broken_yaml_is_refused(self, api: HfApi) -> None:
        with pytest.raises(ValueError, match="Invalid metadata"):
            add(api, {"README.md": b"---\ntags: [a\n---\n"})
        assert api.list_repo_files(REPO) == [".gitattributes"]


class TestCommits:
    @pytest.mark.parametrize(("mode", "puts"), [("auto", 1), ("regular", 0), ("lfs", 2)])
    def test_upload_modes(self, tmp_path: Path, mode: hub_server.UploadMode, puts: int) -> None:
        files = {"w.safetensors": TENSORS, "sub/a.txt": b"text", "empty.txt": b""}
        with serve(tmp_path / mode, upload_mode=mode) as hub:
            api = hub.api()
            api.create_repo(REPO)
            add(api, files)
            assert sum(method == "PUT" for method, _ in hub.requests) == puts
            assert contents(api.snapshot_download(REPO, cache_dir=tmp_path / "cache")) == files

    def test_regular_mode_works_with_xet_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
        with serve(tmp_path / "hub", upload_mode="regular") as hub:
            api = hub.api()
            api.create_repo(REPO)
            add(api, {"w.safetensors": TENSORS})
            assert Path(api.hf_hub_download(REPO, "w.safetensors", cache_dir=tmp_path)).read_bytes() == TENSORS

    def test_large_file_by_size(self, hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
        content = np.random.default_rng(0).bytes(11_000_000)
        add(api, {"large.dat": content})
        assert sum(method == "PUT" for method, _ in hub.requests) == 1
        assert Path(api.hf_hub_download(REPO, "large.dat", cache_dir=tmp_path)).read_bytes() == content

    def test_upload_folder(self, api: HfApi, tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "evidence").mkdir(parents=True)
        (source / "evidence" / "run.json").write_text("{}")
        (source / "w.safetensors").write_bytes(TENSORS)
        api.upload_folder(repo_id=REPO, folder_path=source)
        assert contents(api.snapshot_download(REPO, cache_dir=tmp_path)) == contents(str(source))

    def test_unchanged_file_makes_no_commit(self, api: HfApi) -> None:
        files = {"a.txt": b"a", "w.safetensors": TENSORS}
        assert add(api, files) == add(api, files)
        assert len(api.list_repo_commits(REPO)) == 2

    def test_stale_parent(self, api: HfApi) -> None:
        first = add(api, {"a.txt": b"1"})
        second = add(api, {"a.txt": b"2"}, parent=first)
        assert status_of(lambda: add(api, {"b.txt": b"3"}, parent=first)) == 412
        assert api.model_info(REPO).sha == second
        assert "b.txt" not in api.list_repo_files(REPO)

    def test_delete_file_and_folder(self, api: HfApi) -> None:
        add(api, {"a.txt": b"a", "sub/b.txt": b"b", "sub/deep/c.txt": b"c"})
        api.delete_file("a.txt", REPO)
        api.create_commit(REPO, [CommitOperationDelete("sub/")], commit_message="clear")
        assert api.list_repo_files(REPO) == [".gitattributes"]
        with pytest.raises(EntryNotFoundError):
            api.delete_file("a.txt", REPO)

    def test_history(self, api: HfApi) -> None:
        first = add(api, {"a.txt": b"1"}, message="one")
        second = add(api, {"a.txt": b"2"}, message="two")
        assert [commit.title for commit in api.list_repo_commits(REPO)] == ["two", "one", "initial commit"]
        assert [commit.commit_id for commit in api.list_repo_commits(REPO)][:2] == [second, first]
        assert len(api.list_repo_commits(REPO, revision=first)) == 2

    def test_pull_request_is_refused(self, api: HfApi) -> None:
        with pytest.raises(BadRequestError):
            api.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="a", create_pr=True)

    def test_commit_to_another_branch_is_refused(self, api: HfApi) -> None:
        with pytest.raises(RevisionNotFoundError):
            api.create_commit(REPO, [CommitOperationAdd("a.txt", b"a")], commit_message="a", revision="dev")

    @pytest.mark.parametrize(
        "path",
        ["../a", "a/../../b", "/etc/a", "a//b", ".git/config", "a/.GIT/b", "", ".", "a\\b", "C:/a", "a\nb", "a/"],
    )
    def test_path_that_leaves_the_repository(self, hub: LoopbackHub, api: HfApi, path: str) -> None:
        lines: list[dict[str, Any]] = [
            {"key": "header", "value": {"summary": "evil"}},
            {"key": "file", "value": {"path": path, "content": "YQ==", "encoding": "base64"}},
        ]
        body = b"\n".join(json.dumps(line).encode() for line in lines)
        bearer = f"Bearer {hub.token}"
        assert ask(hub, "POST", f"/api/models/{REPO}/commit/main", body=body, Authorization=bearer)[0] == 400
        assert len(api.list_repo_commits(REPO)) == 1

    @pytest.mark.parametrize("body", [b"", b"no json", b'{"key": "file"}', b'{"key": "header", "value": {}}', b"[]"])
    def test_malformed_commit(self, hub: LoopbackHub, api: HfApi, body: bytes) -> None:
        bearer = f"Bearer {hub.token}"
        assert ask(hub, "POST", f"/api/models/{REPO}/commit/main", body=body, Authorization=bearer)[0] == 400

    def test_file_and_folder_of_one_name(self, api: HfApi) -> None:
        add(api, {"a": b"file"})
        assert status_of(lambda: add(api, {"a/b": b"inside"})) == 400

    def test_many_writers(self, hub: LoopbackHub, api: HfApi) -> None:
        names = [f"{n}.txt" for n in range(8)]
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda name: add(api, {name: name.encode()}), names))
        assert {commit.commit_id for commit in api.list_repo_commits(REPO)} >= set(made)
        assert set(api.list_repo_files(REPO)) == {*names, ".gitattributes"}

    def test_storage_from_many_threads(self, hub: LoopbackHub, api: HfApi) -> None:
        storage = hub.storage

        def commit(n: int) -> None:
            storage.commit(
                REPO, [hub_server.Put(f"{n}.txt", storage.add(b"%d" % n))], message=str(n), author=hub_server.USER
            )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(commit, range(40)))
        assert len(api.list_repo_commits(REPO)) == 41
        assert len(api.list_repo_files(REPO)) == 41

    def test_one_of_many_writers_on_one_parent_wins(self, api: HfApi) -> None:
        parent = str(api.model_info(REPO).sha)

        def attempt(n: int) -> int:
            try:
                add(api, {f"{n}.txt": b"%d" % n}, parent=parent)
            except HfHubHTTPError as error:
                return int(error.response.status_code)
            return 200

        with ThreadPoolExecutor(6) as pool:
            assert sorted(pool.map(attempt, range(6))) == [200, *[412] * 5]
        assert len(api.list_repo_files(REPO)) == 2


class TestTags:
    def test_tag_is_a_label_that_can_move(self, api: HfApi) -> None:
        first = add(api, {"a.txt": b"1"})
        api.create_tag(REPO, tag="v1", revision=first)
        second = add(api, {"a.txt": b"2"})
        assert status_of(lambda: api.create_tag(REPO, tag="v1")) == 409
        api.create_tag(REPO, tag="v1", exist_ok=True)
        assert api.model_info(REPO, revision="v1").sha == first
        api.delete_tag(REPO, tag="v1")
        with pytest.raises(RevisionNotFoundError):
            api.delete_tag(REPO, tag="v1")
        api.create_tag(REPO, tag="v1")
        assert api.model_info(REPO, revision="v1").sha == second

    def test_refs(self, api: HfApi) -> None:
        head = api.model_info(REPO).sha
        for tag in ("v1.0.0", "runs/7"):
            api.create_tag(REPO, tag=tag)
        refs = api.list_repo_refs(REPO)
        assert [(branch.name, branch.target_commit) for branch in refs.branches] == [("main", head)]
        assert [(tag.name, tag.ref) for tag in refs.tags] == [
            ("runs/7", "refs/tags/runs/7"),
            ("v1.0.0", "refs/tags/v1.0.0"),
        ]
        assert api.model_info(REPO, revision="runs/7").sha == head

    @pytest.mark.parametrize("tag", ["", "..", "a..b", "../main", "a b", "main", "-a", "a.lock"])
    def test_malformed_tag(self, api: HfApi, tag: str) -> None:
        assert status_of(lambda: api.create_tag(REPO, tag=tag)) == 400

    def test_tag_of_nothing(self, api: HfApi) -> None:
        with pytest.raises(RevisionNotFoundError):
            api.create_tag(REPO, tag="v1", revision="f" * 40)


class TestTrees:
    def test_tree_and_paths_info(self, api: HfApi) -> None:
        add(api, {"w.safetensors": TENSORS, "sub/a.txt": b"a", "sub/deep/b.txt": b"b"})

        def listed(folder: str | None = None, *, recursive: bool = False) -> set[str]:
            return {entry.path for entry in api.list_repo_tree(REPO, folder, recursive=recursive)}

        assert listed() == {".gitattributes", "w.safetensors", "sub"}
        assert listed("sub") == {"sub/a.txt", "sub/deep"}
        assert listed("sub", recursive=True) == {"sub/a.txt", "sub/deep", "sub/deep/b.txt"}
        with pytest.raises(EntryNotFoundError):
            listed("nowhere")
        large, small, folder = api.get_paths_info(REPO, ["w.safetensors", "sub/a.txt", "sub", "nowhere"])
        assert isinstance(large, RepoFile)
        assert isinstance(small, RepoFile)
        assert large.lfs is not None
        assert large.lfs.sha256 == hashlib.sha256(TENSORS).hexdigest()
        assert (large.size, large.lfs.size, small.size, small.lfs) == (len(TENSORS), len(TENSORS), 1, None)
        # `printf a | git hash-object --stdin`
        assert small.blob_id == "2e65efe2a145dda7ee51d1741299f848e5bf752e"
        assert folder.path == "sub"


class TestDownloads:
    def test_offline_reload_and_restart(self, hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
        files = {"w.safetensors": TENSORS, "sub/a.txt": b"a"}
        oid = add(api, files)
        api.create_tag(REPO, tag="v1")
        online = api.snapshot_download(REPO, revision="v1", cache_dir=tmp_path / "cache")
        hub.requests.clear()
        assert api.snapshot_download(REPO, revision="v1", cache_dir=tmp_path / "cache", local_files_only=True) == online
        assert hub.requests == []

        hub.stop()
        assert contents(api.snapshot_download(REPO, revision="v1", cache_dir=tmp_path / "cache")) == files
        with pytest.raises(LocalEntryNotFoundError):
            api.snapshot_download(REPO, cache_dir=tmp_path / "cold")

        hub.start()
        assert contents(api.snapshot_download(REPO, cache_dir=tmp_path / "cold")) == files
        with serve(hub.root) as second:
            assert second.url != hub.url
            assert second.api().model_info(REPO, revision="v1").sha == oid

    def test_headers(self, hub: LoopbackHub, api: HfApi) -> None:
        oid = add(api, {"w.safetensors": TENSORS, "a.txt": b"a"})
        digest = hashlib.sha256(TENSORS).hexdigest()
        status, headers, body = ask(hub, "HEAD", f"/{REPO}/resolve/main/w.safetensors")
        assert (status, body, headers["X-Repo-Commit"]) == (200, b"", oid)
        assert headers["ETag"] == headers["X-Linked-Etag"] == f'"{digest}"'
        assert headers["X-Linked-Size"] == headers["Content-Length"] == str(len(TENSORS))
        _, headers, body = ask(hub, "GET", f"/{REPO}/resolve/main/a.txt")
        assert (body, headers["ETag"]) == (b"a", '"2e65efe2a145dda7ee51d1741299f848e5bf752e"')
        assert headers["X-Linked-Etag"] is None

    @pytest.mark.parametrize(
        ("asked", "part", "of"),
        [("bytes=0-99", TENSORS[:100], "0-99"), ("bytes=-5", TENSORS[-5:], None), ("bytes=8-", TENSORS[8:], None)],
    )
    def test_range(self, hub: LoopbackHub, api: HfApi, asked: str, part: bytes, of: str | None) -> None:
        add(api, {"w.safetensors": TENSORS})
        status, headers, body = ask(hub, "GET", f"/{REPO}/resolve/main/w.safetensors", Range=asked)
        assert (status, body, headers["Content-Length"]) == (206, part, str(len(part)))
        of = of or f"{len(TENSORS) - len(part)}-{len(TENSORS) - 1}"
        assert headers["Content-Range"] == f"bytes {of}/{len(TENSORS)}"

    def test_range_beyond_the_end(self, hub: LoopbackHub, api: HfApi) -> None:
        add(api, {"a.txt": b"abc"})
        status, headers, _ = ask(hub, "GET", f"/{REPO}/resolve/main/a.txt", Range="bytes=3-9")
        assert (status, headers["Content-Range"]) == (416, "bytes */3")

    def test_safetensors_metadata(self, hub: LoopbackHub, api: HfApi) -> None:
        add(api, {"model.safetensors": TENSORS})
        hub.requests.clear()
        metadata = api.get_safetensors_metadata(REPO).files_metadata["model.safetensors"]
        assert {name: tensor.shape for name, tensor in metadata.tensors.items()} == {"operator": [50, 80], "bias": [3]}
        assert [method for method, _ in hub.requests] == ["HEAD", "GET"]

    def test_git_lfs_download(self, hub: LoopbackHub, api: HfApi) -> None:
        add(api, {"w.safetensors": TENSORS})
        oid = hashlib.sha256(TENSORS).hexdigest()
        objects = [{"oid": oid, "size": len(TENSORS)}, {"oid": "0" * 64, "size": 1}]
        body = json.dumps({"operation": "download", "objects": objects}).encode()
        _, _, answer = ask(hub, "POST", f"/{REPO}.git/info/lfs/objects/batch", body=body)
        found, missing = json.loads(answer)["objects"]
        link = found["actions"]["download"]["href"].removeprefix(hub.url)
        assert ask(hub, "GET", link)[2] == TENSORS
        assert missing["error"]["code"] == 404


class TestPatchedClient:
    def test_module_level_functions_reach_the_hub(
        self, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        hub.patch_client(monkeypatch, tmp_path)
        huggingface_hub.create_repo(REPO, private=True)
        card = b"---\nlicense: mit\n---\n# Card\n"
        huggingface_hub.upload_file(repo_id=REPO, path_in_repo="README.md", path_or_fileobj=card)
        assert ModelCard.load(REPO).data.license == "mit"
        folder = Path(huggingface_hub.snapshot_download(REPO))
        assert folder.is_relative_to(tmp_path / "hub")
        assert HfApi().whoami()["name"] == hub_server.USER

    def test_anonymous(self, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", hub.token)
        hub.patch_client(monkeypatch, tmp_path, token=None)
        assert status_of(lambda: huggingface_hub.create_repo(REPO)) == 401


class TestRefusals:
    def test_error_types(self, api: HfApi, tmp_path: Path) -> None:
        api.create_tag(REPO, tag="v1")
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("zoo/missing")
        with pytest.raises(RepositoryNotFoundError):
            api.model_info("missing")
        with pytest.raises(RepositoryNotFoundError):
            api.snapshot_download("zoo/missing", cache_dir=tmp_path)
        for revision in ("v2", "0" * 40, "0" * 7, "refs/pr/1", "*"):
            with pytest.raises(RevisionNotFoundError):
                api.hf_hub_download(REPO, ".gitattributes", revision=revision, cache_dir=tmp_path)
        with pytest.raises(EntryNotFoundError):
            api.hf_hub_download(REPO, "missing.txt", revision="v1", cache_dir=tmp_path)
        assert not api.file_exists(REPO, "missing.txt")

    def test_anonymous_may_read_only(self, hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
        add(api, {"a.txt": b"a"})
        stranger = hub.api(token=None)
        assert Path(stranger.hf_hub_download(REPO, "a.txt", cache_dir=tmp_path)).read_bytes() == b"a"
        assert status_of(lambda: stranger.create_repo("zoo/mine")) == 401
        assert status_of(lambda: add(stranger, {"b.txt": b"b"})) == 401
        assert status_of(lambda: stranger.create_tag(REPO, tag="v1")) == 401
        assert status_of(lambda: stranger.delete_repo(REPO)) == 401
        assert status_of(lambda: stranger.model_info("zoo/missing")) == 401

    def test_read_token_may_not_write(self, hub: LoopbackHub, api: HfApi) -> None:
        reader = hub.api(token=hub.read_token)
        assert reader.whoami()["auth"]["accessToken"]["role"] == "read"
        assert status_of(lambda: reader.create_repo("zoo/mine")) == 403
        assert status_of(lambda: add(reader, {"b.txt": b"b"})) == 403
        assert status_of(lambda: reader.create_tag(REPO, tag="v1")) == 403
        assert status_of(lambda: reader.delete_repo(REPO)) == 403
        assert status_of(lambda: reader.update_repo_settings(REPO, private=True)) == 403

    def test_unknown_token(self, hub: LoopbackHub, api: HfApi) -> None:
        intruder = hub.api(token="made-up")
        assert status_of(lambda: intruder.model_info(REPO)) == 401
        assert status_of(lambda: intruder.whoami()) == 401

    def test_private_repository_is_hidden(self, hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
        add(api, {"a.txt": b"a"})
        api.update_repo_settings(REPO, private=True)
        with pytest.raises(RepositoryNotFoundError):
            hub.api(token=None).model_info(REPO)
        with pytest.raises(RepositoryNotFoundError):
            hub.api(token=None).hf_hub_download(REPO, "a.txt", cache_dir=tmp_path)
        assert hub.api(token=hub.read_token).model_info(REPO).private
        api.update_repo_settings(REPO, private=False)
        assert not hub.api(token=None).model_info(REPO).private

    @pytest.mark.parametrize("token", [None, hub_server.READ_TOKEN])
    def test_gated_repository(self, hub: LoopbackHub, api: HfApi, tmp_path: Path, token: str | None) -> None:
        add(api, {"a.txt": b"a"})
        hub.gate(REPO)
        assert hub.api(token=token).model_info(REPO).gated == "auto"
        with pytest.raises(GatedRepoError):
            hub.api(token=token).hf_hub_download(REPO, "a.txt", cache_dir=tmp_path)
        assert api.hf_hub_download(REPO, "a.txt", cache_dir=tmp_path)

    def test_large_file_storage_takes_only_what_was_promised(self, hub: LoopbackHub, api: HfApi) -> None:
        oid = hashlib.sha256(b"promised").hexdigest()
        assert ask(hub, "PUT", f"/lfs/{oid}?size=8&signature=guessed", body=b"promised")[0] == 403
        body = json.dumps({"operation": "upload", "objects": [{"oid": oid, "size": 8}]}).encode()
        batch = f"/{REPO}.git/info/lfs/objects/batch"
        assert ask(hub, "POST", batch, body=body)[0] == 401
        _, _, answer = ask(hub, "POST", batch, body=body, Authorization=f"Bearer {hub.token}")
        link = json.loads(answer)["objects"][0]["actions"]["upload"]["href"].removeprefix(hub.url)
        assert ask(hub, "PUT", link, body=b"PROMISED")[0] == 400
        assert not hub.storage.blob(oid).exists()
        assert ask(hub, "PUT", link, body=b"promised")[0] == 200
        assert hub.storage.blob(oid).read_bytes() == b"promised"


class TestFaults:
    def test_corrupt(self, hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
        api.create_repo("zoo/copy")
        for repo_id in (REPO, "zoo/copy"):
            api.upload_file(repo_id=repo_id, path_in_repo="w.safetensors", path_or_fileobj=TENSORS)
        hub.corrupt(REPO, "w.safetensors", at=-1)
        served = Path(api.hf_hub_download(REPO, "w.safetensors", cache_dir=tmp_path / "a")).read_bytes()
        assert served == TENSORS[:-1] + bytes([TENSORS[-1] ^ 0xFF])
        copy = api.hf_hub_download("zoo/copy", "w.safetensors", cache_dir=tmp_path / "a")
        assert Path(copy).read_bytes() == TENSORS
        hub.heal()
        assert Path(api.hf_hub_download(REPO, "w.safetensors", cache_dir=tmp_path / "b")).read_bytes() == TENSORS

    def test_fail_next(self, hub: LoopbackHub, api: HfApi) -> None:
        hub.requests.clear()
        hub.fail_next(2, 503)
        assert status_of(lambda: api.model_info(REPO)) == 503
        assert status_of(lambda: api.model_info(REPO)) == 503
        assert api.model_info(REPO).id == REPO
        assert hub.requests == [("GET", f"/api/models/{REPO}")] * 3


class TestOtherReaders:
    def test_export_is_what_git_makes_of_it(self, hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
        first = add(api, {"a.txt": b"1", "a/b.txt": b"x", "a-b/c": b"y", "w.safetensors": TENSORS})
        api.create_tag(REPO, tag="v1")
        second = add(api, {"a.txt": b"2", "with space, umlaut \u00e4.txt": b"z"}, message="two\n\nlong \u00e4")
        checkout = hub.export_git(REPO, tmp_path / "checkout")

        def git(*arguments: str) -> str:
            done = subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True, text=True)
            return done.stdout.strip()

        git("fsck", "--strict")
        assert (git("rev-parse", "HEAD"), git("rev-parse", "v1")) == (second, first)
        assert git("show", "v1:a.txt") == "1"
        assert git("show", "HEAD:w.safetensors").splitlines()[1:] == [
            f"oid sha256:{hashlib.sha256(TENSORS).hexdigest()}",
            f"size {len(TENSORS)}",
        ]
        assert (checkout / "w.safetensors").read_bytes() == TENSORS
        assert (checkout / "a/b.txt").read_bytes() == b"x"

    def test_round_trip(self, hub: LoopbackHub, tmp_path: Path) -> None:
        check_round_trip(hub, sys.executable, tmp_path)

    @pytest.mark.slow
    def test_round_trip_with_the_first_major_version(self, hub: LoopbackHub, tmp_path: Path) -> None:
        python = environment_with(tmp_path / "venv", "huggingface_hub<2")
        assert check_round_trip(hub, str(python), tmp_path).startswith("1.")

    @pytest.mark.slow
    def test_olah_serves_the_export(self, hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
        first = add(
            api, {"w.safetensors": TENSORS, "README.md": b"---\nlicense: mit\n---\n# Card\n", "sub/a.txt": b"1"}
        )
        api.create_tag(REPO, tag="v1")
        second = add(api, {"sub/a.txt": b"2"})
        states = {
            name: contents(api.snapshot_download(REPO, revision=name, cache_dir=tmp_path)) for name in ("v1", "main")
        }
        hub.export_git(REPO, tmp_path / "mirrors" / "models" / REPO)
        hub.stop()

        python = environment_with(tmp_path / "venv", "olah")
        with olah(python, tmp_path) as url:
            mirror = HfApi(endpoint=url, token=False)
            refs = mirror.list_repo_refs(REPO)
            assert {ref.name: ref.target_commit for ref in (*refs.branches, *refs.tags)} == {
                "main": second,
                "v1": first,
            }
            for name, files in states.items():
                tree = {entry.path for entry in mirror.list_repo_tree(REPO, revision=name, recursive=True)}
                assert tree == {*files, ".gitattributes", "sub"}
                cache = tmp_path / f"olah-{name}"
                one = mirror.hf_hub_download(REPO, "w.safetensors", revision=name, cache_dir=cache / "one")
                assert Path(one).read_bytes() == TENSORS
                assert contents(mirror.snapshot_download(REPO, revision=name, cache_dir=cache / "all")) == files


def check_round_trip(hub: LoopbackHub, python: str, folder: Path) -> str:
    """Run the round trip with another interpreter, compare with what the hub stores; return the client's version."""
    ran = subprocess.run(
        [python, str(ROUND_TRIP), REPO],
        env=hub.environment(folder / "home"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)

    def stored(revision: str) -> dict[str, str]:
        return {path: file.sha256 for path, file in hub.storage.resolve(REPO, revision).tree.items()}

    assert told["first"] == told["tag"] == hub.storage.repo(REPO).tags["v1"]
    assert told["stale"] == 412
    assert told["v1"] == told["offline"] == stored("v1")
    assert told["main"] == stored("main")
    assert set(stored("main")) == set(stored(told["second"])) | {"README.md"}
    assert stored("v1")["data/note.txt"] == hashlib.sha256(b"first").hexdigest()
    assert told["card"] == {"license": "mit", "tags": ["zoo"]}
    assert told["tensors"] == ["w"]
    assert told["found"] == [REPO]
    assert told["missing"] == "RepositoryNotFoundError"
    assert told["revision"] == "RevisionNotFoundError"
    assert told["entry"] in ("EntryNotFoundError", "RemoteEntryNotFoundError")
    version: str = told["version"]
    return version


def environment_with(folder: Path, requirement: str) -> Path:
    """Make a virtual environment with one package; return its interpreter. Skip where it cannot be installed."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    installed = subprocess.run(install, capture_output=True, text=True, timeout=600)
    if installed.returncode != 0:
        pytest.skip(f"{requirement} cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    return python


@contextmanager
def olah(python: Path, folder: Path) -> Iterator[str]:
    """Serve ``folder / "mirrors"`` with olah, a mirror server written by others, cut off from its upstream."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "olah.toml"
    config.write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nrepos-path = "{folder / "repos"}"\n'
        f'mirrors-path = ["{folder / "mirrors"}"]\n[accessibility]\noffline = true\n'
    )
    command = [str(python), "-m", "olah.server", "--config", str(config), "--log-path", str(folder / "logs")]
    with (
        (folder / "olah.log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT) as server,
    ):
        try:
            deadline = time.monotonic() + 60
            while True:
                assert server.poll() is None, (folder / "olah.log").read_text()
                assert time.monotonic() < deadline, (folder / "olah.log").read_text()
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
