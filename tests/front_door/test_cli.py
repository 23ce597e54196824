"""Every command as a real process, for people and as JSON, and what each outcome exits with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from artifacts import FILES, contents, flip, passing_run

import manifoldzoo
from hub_server import LoopbackHub, serve
from manifoldzoo.__main__ import run
from manifoldzoo.cards._errors import GateError, PermissionDeniedError, StoreError
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry import _publish
from manifoldzoo.registry._evidence_files import add_evidence
from manifoldzoo.registry._publish import publish

COMMANDS = (
    "list",
    "info",
    "update",
    "pull",
    "transform",
    "panel",
    "extract",
    "screen",
    "validate",
    "report",
    "reproduce",
    "publish",
    "verify",
    "cite",
    "lock",
    "bundle",
    "unbundle",
    "doctor",
    "demo",
)
Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]


@pytest.fixture
def hub(
    artifact: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackHub]:
    """A hub with tiny@0.1.0 in zoo/tiny, known to every subprocess."""
    with serve(tmp_path / "served") as served:
        with pytest.MonkeyPatch.context() as patch:
            served.patch_client(patch, tmp_path / "publisher")
            patch.setattr(_publish, "validate", lambda manifold, **options: passing_run(manifold))
            publish(artifact, "zoo/tiny")
        served.requests.clear()
        for name, value in served.environment(tmp_path / "client").items():
            # users do not set this one
            if name != "HF_HUB_DISABLE_PROGRESS_BARS":
                monkeypatch.setenv(name, value)
        yield served


def check_plain(done: Done, status: int = 0) -> str:
    """What people see on standard output: no JSON, no colours, no traceback."""
    assert done.returncode == status, done.stderr + done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not done.stdout.startswith("{")
    return done.stdout


def check_json(done: Done, status: int = 0) -> dict[str, Any]:
    """The one document on standard output."""
    assert done.returncode == status, done.stderr + done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document: dict[str, Any] = json.loads(done.stdout, parse_constant=refuse)
    assert document["schema"] == 1
    return document


def check_error(done: Done, status: int, kind: str) -> dict[str, str]:
    error: dict[str, str] = check_json(done, status)["error"]
    assert set(error) == {"type", "message", "hint"}
    assert error["type"] == kind
    assert error["message"]
    return error


class TestCommands:
    def test_list(self, run_cli: Cli, stored: Path) -> None:
        digest = Manifold.read(stored).digest
        (row,) = [row for row in check_json(run_cli("list", "--json"))["manifolds"] if row["store"] == "local"]
        assert {key: row[key] for key in ("name", "version", "rung", "source_model", "parent", "digest")} == {
            "name": "tiny",
            "version": "0.1.0",
            "rung": 0,
            "source_model": "none",
            "parent": None,
            "digest": digest,
        }
        assert row["size_bytes"] > 1000
        (line,) = [line for line in check_plain(run_cli("list", "tin")).splitlines() if line.startswith("tiny")]
        assert line.split()[:3] == ["tiny", "0.1.0", "0/6"]
        assert check_json(run_cli("list", "no-such-name", "--json"))["manifolds"] == []

    def test_info(self, run_cli: Cli, stored: Path) -> None:
        told = check_json(run_cli("info", "tiny", "--json"))
        assert (told["reference"], told["rung"], told["card"]["title"]) == ("tiny@0.1.0", 0, "Tiny")
        assert "# Tiny" in check_plain(run_cli("info", "tiny"))
        assert told["digest"] in run_cli("info", "tiny").stdout

    def test_update(self, run_cli: Cli, hub: LoopbackHub) -> None:
        told = check_json(run_cli("update", "--owner", "zoo", "--json"))
        assert (told["owner"], told["n_entries"]) == ("zoo", 1)
        assert "1" in check_plain(run_cli("update", MANIFOLDZOO_INDEX_OWNER="zoo"))
        assert check_json(run_cli("info", "tiny", "--json"))["store"] == "hub"

    def test_pull(self, run_cli: Cli, hub: LoopbackHub, tmp_path: Path, artifact: Path) -> None:
        done = run_cli("pull", "zoo/tiny@0.1.0", "--to", tmp_path / "copy", "--json")
        told = check_json(done)
        assert (told["reference"], told["folder"]) == ("tiny@0.1.0", str(tmp_path / "copy"))
        assert done.stderr == ""
        copied = contents(tmp_path / "copy")
        assert {name: copied[name] for name in FILES} == contents(artifact)
        assert "tiny@0.1.0" in check_plain(run_cli("pull", "zoo/tiny@0.1.0"))

    def test_transform(self, run_cli: Cli, stored: Path, cells: Path, tmp_path: Path) -> None:
        before = cells.read_bytes()
        told = check_json(run_cli("transform", "tiny", cells, "-o", tmp_path / "a.h5ad", "--json"))
        assert (told["n_cells"], told["scale"], told["coverage"]) == (12, "log1p", 1.0)
        placed = np.asarray(ad.read_h5ad(tmp_path / "a.h5ad").obsm["X_tiny"])
        manifold = manifoldzoo.load("tiny")
        assert np.allclose(placed, manifold.project(ad.read_h5ad(cells).X), atol=1e-5)
        said = check_plain(run_cli("transform", "tiny", cells, "-o", tmp_path / "b.h5ad", "--key-added", "mine"))
        assert "12 cells" in said
        assert "X_mine" in ad.read_h5ad(tmp_path / "b.h5ad").obsm
        assert cells.read_bytes() == before
        assert told["groups"] is None

    def test_transform_tells_groups(self, run_cli: Cli, stored: Path, cells: Path, tmp_path: Path) -> None:
        named = ad.read_h5ad(cells)
        named.obs["cell_type"] = ["a"] * 5 + ["b"] * 7
        named.write_h5ad(tmp_path / "in.h5ad")
        arguments = ("transform", "tiny", tmp_path / "in.h5ad", "-o", tmp_path / "out.h5ad", "--groupby")
        told = check_json(run_cli(*arguments, "cell_type", "--json"))["groups"]
        assert (told["by"], told["names"], told["sizes"]) == ("cell_type", ["a", "b"], [5, 7])
        held = ad.read_h5ad(tmp_path / "out.h5ad").uns["tiny"]
        assert np.array_equal(held["group_distances"], told["distances"])
        assert "distances between 2 groups by cell_type" in check_plain(run_cli(*arguments, "cell_type"))
        error = check_error(run_cli(*arguments, "celltype", "--json"), 2, "BadInputError")
        assert "'celltype'" in error["message"] and "cell_type" in error["hint"]

    def test_validate(self, run_cli: Cli, artifact: Path, tmp_path: Path) -> None:
        mine = Path(shutil.copytree(artifact, tmp_path / "mine"))
        told = check_json(run_cli("validate", mine, "--through", "2", "--json"))
        assert (told["reference"], told["rung_reached"]) == ("tiny@0.1.0", 2)
        assert [(rung["rung"], rung["name"], rung["status"]) for rung in told["rungs"]] == [
            (1, "valid", "pass"),
            (2, "reproduces", "pass"),
        ]
        assert all({"reason", "records"} <= set(rung) for rung in told["rungs"])
        assert len(list((mine / "evidence").glob("*.json"))) == 1
        assert "No validation run" not in (mine / "README.md").read_text()
        assert "reproduces" in check_plain(run_cli("validate", mine, "--through", "2", "--no-save"))
        assert len(list((mine / "evidence").glob("*.json"))) == 1

    def test_validate_says_no(self, run_cli: Cli, stored: Path) -> None:
        told = check_json(run_cli("validate", "tiny", "--through", "4", "--json"), status=1)
        assert told["rung_reached"] == 2
        assert [rung["status"] for rung in told["rungs"]] == ["pass", "pass", "fail", "fail"]
        assert not (stored / "evidence").exists()

    def test_publish(self, run_cli: Cli, artifact: Path, own_folders: Path) -> None:
        store = own_folders / "zoo" / "store"
        error = check_error(run_cli("publish", artifact, "--to", "local", "--json"), 1, "GateError")
        assert "--allow-below" in error["hint"]
        assert not store.exists()
        done = run_cli("publish", artifact, "--to", "local", "--allow-below", "a test", "--json")
        told = check_json(done)
        assert told["reference"] == "tiny@0.1.0"
        assert Path(told["location"]) == store / "tiny" / "0.1.0"
        again = run_cli("publish", artifact, "--to", "local")
        assert again.returncode == 3
        assert check_plain(again, 3) == ""
        assert "tiny@0.1.0" in again.stderr

    def test_publish_for_people(self, run_cli: Cli, artifact: Path) -> None:
        said = check_plain(run_cli("publish", artifact, "--to", "local", "--allow-below", "a test"))
        assert said.startswith("published tiny@0.1.0")

    def test_verify(self, run_cli: Cli, stored: Path) -> None:
        checked = check_json(run_cli("verify", "tiny", "--json"))
        assert (checked["reference"], checked["ok"], len(checked["files"])) == ("tiny@0.1.0", True, 5)
        flip(stored / "genes.tsv")
        checked = check_json(run_cli("verify", "tiny", "--json"), status=1)
        assert not checked["ok"]
        assert "changed  genes.tsv" in check_plain(run_cli("verify", "tiny"), status=1)

    def test_cite(self, run_cli: Cli, stored: Path) -> None:
        told = check_json(run_cli("cite", "tiny", "--json"))
        assert told["citations"][0]["text"] == "Nobody (2026)."
        said = check_plain(run_cli("cite", "tiny"))
        assert "Nobody (2026)." in said
        assert told["digest"] in said

    def test_lock(self, run_cli: Cli, stored: Path, tmp_path: Path) -> None:
        told = check_json(run_cli("lock", "tiny", "-o", tmp_path / "a.lock", "--json"))
        written = json.loads((tmp_path / "a.lock").read_text())
        assert told["entries"] == written["entries"]
        assert written["entries"][0]["digest"] == Manifold.read(stored).digest
        assert "1" in check_plain(run_cli("lock", "tiny", cwd=tmp_path))
        assert (tmp_path / "manifoldzoo.lock").read_bytes() == (tmp_path / "a.lock").read_bytes()

    def test_bundle_and_unbundle(self, run_cli: Cli, stored: Path, tmp_path: Path) -> None:
        told = check_json(run_cli("bundle", "tiny", "-o", tmp_path / "a.tar", "--json"))
        assert told["packed"] == ["tiny@0.1.0"]
        check_plain(run_cli("bundle", "tiny", "-o", tmp_path / "b.tar"))
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
        shutil.rmtree(stored)
        assert check_json(run_cli("unbundle", tmp_path / "a.tar", "--json"))["stored"] == ["tiny@0.1.0"]
        assert stored.is_dir()
        assert "tiny@0.1.0" in check_plain(run_cli("unbundle", tmp_path / "a.tar"))

    def test_doctor(self, run_cli: Cli, stored: Path) -> None:
        told = check_json(run_cli("doctor", "--json"))
        assert told["ok"]
        assert {"what", "found", "ok"} == set(told["findings"][0])
        flip(stored / "genes.tsv")
        assert not check_json(run_cli("doctor", "--json"), status=1)["ok"]
        assert "PROBLEM" in check_plain(run_cli("doctor"), status=1)

    def test_help(self, run_cli: Cli) -> None:
        said = check_plain(run_cli("--help"))
        for command in COMMANDS:
            assert f"\n  {command} " in said
        assert check_plain(run_cli("--version")) == f"{manifoldzoo.__version__}\n"

    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_of_each(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([command, "--help"]) == 0
        out, err = capsys.readouterr()
        assert "--json" in out
        assert "--debug" in out
        assert err == ""

    def test_the_script_is_the_same(self, run_cli: Cli, stored: Path) -> None:
        script = Path(sys.executable).with_name("manifoldzoo")
        if not script.exists():
            pytest.skip("the script is not installed beside the interpreter")
        done = subprocess.run([script, "list", "--json"], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == run_cli("list", "--json").stdout


class TestErrors:
    """In this process: what `run` returns and where it writes."""

    @pytest.mark.parametrize(
        ("arguments", "status", "kind"),
        [
            (["bogus"], 2, None),
            ([], 2, None),
            (["info"], 2, None),
            (["list", "--no-such-option"], 2, None),
            (["validate", "tiny", "--through", "7"], 2, None),
            (["validate", "tiny", "--through", "x"], 2, None),
            (["transform", "tiny", "in.h5ad", "-o", "out.h5ad", "--scale", "odd"], 2, None),
            (["info", "Name"], 2, "ReferenceSyntaxError"),
            (["info", "a/b/c"], 2, "ReferenceSyntaxError"),
            (["info", "nobody"], 3, "NotFoundError"),
            (["verify", "./nothing"], 3, "NotFoundError"),
            (["unbundle", "./nothing.tar"], 3, "NotFoundError"),
            (["publish", "./nothing", "--to", "local"], 3, "NotFoundError"),
            (["publish", "./nothing", "--to", "nowhere"], 2, "ReferenceSyntaxError"),
            (["info", "owner/repo", "--offline"], 3, "StoreError"),
        ],
    )
    def test_table(
        self, arguments: list[str], status: int, kind: str | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(arguments) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert "Traceback" not in err
        assert run([*arguments, "--json"]) == status
        out, err = capsys.readouterr()
        document = json.loads(out)
        assert set(document) == {"schema", "error"}
        assert set(document["error"]) == {"type", "message", "hint"}
        assert kind in (None, document["error"]["type"])
        assert document["error"]["hint"]
        assert err == ""

    @pytest.mark.parametrize(
        ("raised", "status"),
        [
            (GateError("no", "next"), 1),
            (StoreError("no", "next"), 3),
            (PermissionDeniedError("no", "next"), 3),
            (RuntimeError("a bug"), 70),
            (KeyError("a bug"), 70),
            (AssertionError(), 70),
            (RecursionError("deep"), 70),
            (OSError(5, "Input/output error"), 70),
            (KeyboardInterrupt(), 130),
        ],
        ids=lambda raised: type(raised).__name__,
    )
    @pytest.mark.parametrize("debug", [False, True])
    def test_what_is_raised_in_a_command(
        self,
        raised: BaseException,
        status: int,
        debug: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail(*arguments: object) -> None:
            raise raised

        monkeypatch.setattr("manifoldzoo.registry._catalogue.list_manifolds", fail)
        extra = ["--debug"] if debug else []
        assert run(["list", "--json", *extra]) == status
        out, err = capsys.readouterr()
        error = json.loads(out)["error"]
        assert error["message"]
        assert error["type"] == ("Interrupted" if status == 130 else type(raised).__name__)
        assert ("Traceback" in err) == debug
        assert run(["list", *extra]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert f"error: {error['message']}" in err
        assert ("Traceback" in err) == debug
        if status == 70:
            assert "--debug" in error["hint"]

    def test_a_gate_and_nothing_else_exits_with_1(self, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flip(stored / "manifold.safetensors")
        assert run(["validate", "tiny", "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["type"] == "IntegrityError"
        assert run(["info", "tiny"]) == 0

    def test_warnings_go_to_standard_error(self, run_cli: Cli, hub: LoopbackHub, tmp_path: Path) -> None:
        check_json(run_cli("pull", "zoo/tiny@0.1.0", "--json"))
        (path,) = (tmp_path / "client").glob("hub/models--*/snapshots/*/genes.tsv")
        flip(path)
        error = check_error(run_cli("info", "zoo/tiny@9.9.9", "--json"), 3, "NotFoundError")
        assert "zoo/tiny@9.9.9" in error["message"]
        done = run_cli("pull", "zoo/tiny@0.1.0", "--json")
        check_json(done)
        assert done.stderr.startswith("warning: ")
        assert "genes.tsv" in done.stderr
        assert len(done.stderr.splitlines()) == 1

    def test_without_a_network(self, run_cli: Cli, hub: LoopbackHub) -> None:
        check_json(run_cli("pull", "zoo/tiny@0.1.0", "--json"))
        hub.stop()
        assert "# Tiny" in check_plain(run_cli("info", "zoo/tiny@0.1.0"))
        done = run_cli("info", "zoo/tiny")
        assert check_plain(done, 3) == ""
        assert done.stderr.startswith("error: ")

    @pytest.mark.slow
    def test_update_without_a_network(self, run_cli: Cli, hub: LoopbackHub) -> None:
        hub.stop()
        check_error(run_cli("update", "--owner", "zoo", "--json"), 3, "StoreError")

    def test_environment_offline(self, run_cli: Cli, hub: LoopbackHub) -> None:
        check_error(run_cli("info", "zoo/tiny", "--json", HF_HUB_OFFLINE="1"), 3, "StoreError")
        check_error(run_cli("update", "--json", HF_HUB_OFFLINE="1"), 3, "StoreError")
        assert hub.requests == []

    def test_colours_only_where_asked(self, run_cli: Cli, stored: Path) -> None:
        assert "\x1b" not in run_cli("list", "--json", FORCE_COLOR="1", NO_COLOR="").stdout
        check_plain(run_cli("list", "--no-such-option", TERM="xterm-256color", NO_COLOR=""), 2)


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "manifoldzoo", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


class TestSignals:
    @pytest.mark.parametrize("json_", [False, True])
    def test_ctrl_c_during_a_validation_leaves_nothing(self, artifact: Path, tmp_path: Path, json_: bool) -> None:
        mine = Path(shutil.copytree(artifact, tmp_path / "mine"))
        # the gates of the tiny manifold take seconds; a marker tells when they have begun
        code = (
            "import sys, pathlib; import manifoldzoo.gates._ladder as ladder; gates = ladder.published_gates\n"
            "def slow(*a, **k):\n"
            f"    pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
            "    while True: gates(*a, **k)\n"
            "ladder.published_gates = slow\n"
            "from manifoldzoo.__main__ import main; main()"
        )
        arguments = ["validate", str(mine), *(["--json"] if json_ else [])]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err
        if json_:
            assert json.loads(out)["error"]["type"] == "Interrupted"
        else:
            assert out == ""
            assert err.startswith("error: Interrupted")
        assert contents(mine) == contents(artifact)

    @pytest.mark.parametrize("arguments", [["list", "--json"], ["info", "tiny", "--json"], ["info", "tiny"]])
    def test_a_reader_that_goes_away(self, stored: Path, arguments: list[str]) -> None:
        for _ in range(40):
            add_evidence(stored, passing_run(Manifold.read(stored)))
        process = start(*arguments)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait(timeout=60) == 0
        assert err == ""

    def test_head(self, stored: Path) -> None:
        for _ in range(40):
            add_evidence(stored, passing_run(Manifold.read(stored)))
        command = f"{sys.executable} -m manifoldzoo info tiny --json | head -n 1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.splitlines() == ["{", "0"]
        assert done.stderr == ""


HEAVY = ("torch", "anndata", "sklearn", "scipy.stats", "pandas", "scanpy", "matplotlib", "huggingface_hub")


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["info", "tiny"], ["info", "tiny", "--json"]])
def test_the_light_commands_load_nothing_heavy(stored: Path, arguments: list[str]) -> None:
    code = (
        "import sys; from manifoldzoo.__main__ import run; "
        f"status = run({arguments}); print([m for m in {HEAVY} if m in sys.modules], status, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stderr.strip() == "[] 0"


@pytest.mark.slow
def test_the_light_commands_are_quick(stored: Path) -> None:
    for arguments in (["list"], ["info", "tiny"]):
        times = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "manifoldzoo", *arguments], capture_output=True, check=True)
            times.append(time.perf_counter() - started)
        assert min(times) < 1.0, times
