from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from artifacts import FILES, flip, passing_run, write_tiny

from hub_server import LoopbackHub
from manifoldzoo.cards._errors import FormatError, IntegrityError, IntegrityWarning, NotFoundError
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry._catalogue import info, list_manifolds
from manifoldzoo.registry._evidence_files import add_evidence
from manifoldzoo.registry._folders import local_store
from manifoldzoo.registry._hub_index import refresh_index


@pytest.fixture
def stored(artifact: Path, tmp_path: Path) -> Path:
    """The tiny manifold in the local store, with evidence of rung 2, an older run of rung 3 and one of other bytes."""
    folder = local_store().put(artifact, "tiny", "0.1.0")
    manifold = Manifold.read(folder)
    add_evidence(folder, passing_run(manifold, rung=3))
    add_evidence(folder, passing_run(manifold, rung=2))
    add_evidence(folder, passing_run(Manifold.read(write_tiny(tmp_path / "other", title="Another")), rung=6))
    return folder


def mine(pattern: str = "*") -> list[tuple[str, str]]:
    return [(row["name"], row["version"]) for row in list_manifolds(pattern) if row["store"] != "bundled"]


class TestList:
    def test_a_row(self, stored: Path) -> None:
        (row,) = [row for row in list_manifolds() if row["store"] == "local"]
        assert row == {
            "name": "tiny",
            "version": "0.1.0",
            "title": "Tiny",
            "rung": 3,
            "size_bytes": sum((stored / name).stat().st_size for name in FILES[1:]),
            "source_model": "none",
            "ruler": "stage-graph",
            "parent": None,
            "store": "local",
            "digest": Manifold.read(stored).digest,
        }

    def test_order_and_patterns(self, artifact: Path, tmp_path: Path) -> None:
        for name, version in (("tiny", "0.10.0"), ("tiny", "0.9.0"), ("cd4-cd8", "1.0.0"), ("tinker", "0.1.0")):
            local_store().put(write_tiny(tmp_path / name / version, name=name, version=version), name, version)
        everything = [("cd4-cd8", "1.0.0"), ("tinker", "0.1.0"), ("tiny", "0.9.0"), ("tiny", "0.10.0")]
        assert mine() == everything
        assert mine("tin") == everything[1:]
        assert mine("tin?") == mine("tiny") == everything[2:]
        assert mine("*-cd[48]") == everything[:1]
        assert mine("TINY") == mine("zzz") == []

    def test_rows_of_the_hub_have_the_same_fields(self, published: LoopbackHub, artifact: Path) -> None:
        refresh_index("zoo")
        (on_hub,) = [row for row in list_manifolds() if row["store"] == "hub"]
        local_store().put(artifact, "tiny", "0.1.0")
        (local,) = [row for row in list_manifolds() if row["store"] == "local"]
        assert set(on_hub) == set(local)
        same = set(local) - {"store", "title", "rung"}
        assert {key: on_hub[key] for key in same} == {key: local[key] for key in same}
        assert (on_hub["rung"], local["rung"]) == (3, 0)
        assert mine() == [("tiny", "0.1.0")]

    @pytest.mark.parametrize("damage", ["card.json", "evidence", "pickle"])
    def test_one_damaged_artifact_does_not_hide_the_others(self, stored: Path, tmp_path: Path, damage: str) -> None:
        local_store().put(write_tiny(tmp_path / "sound", name="sound"), "sound", "0.1.0")
        if damage == "evidence":
            (stored / "evidence" / "x.json").write_text('{"rungs": []}')
        elif damage == "pickle":
            (stored / "x.pkl").write_bytes(b"")
        else:
            flip(stored / damage)
        with pytest.warns(IntegrityWarning, match=r"tiny@0\.1\.0"):
            assert mine() == [("sound", "0.1.0")]


class TestInfo:
    def test_all_that_is_known(self, stored: Path) -> None:
        told = info("tiny")
        assert told["reference"] == "tiny@0.1.0"
        assert (told["store"], told["origin"], told["commit"]) == ("local", str(stored), "")
        assert told["digest"] == Manifold.read(stored).digest
        assert told["rung"] == 3
        assert [len(run["rungs"]) for run in told["evidence"]] == [3, 2]
        assert [file["name"] for file in told["files"]] == sorted(FILES[1:])
        assert told["card"]["title"] == "Tiny"
        assert told["ruler"] == "stage-graph"
        assert isinstance(told["index_age_days"], float)

    def test_on_the_hub(self, published: LoopbackHub) -> None:
        told = info("zoo/tiny@0.1.0")
        assert (told["store"], told["origin"], told["rung"]) == ("hub", "zoo/tiny", 3)
        assert told["commit"] == published.storage.repo("zoo/tiny").head
        published.requests.clear()
        assert info("zoo/tiny@0.1.0") == told
        assert info("zoo/tiny@0.1.0", offline=True) == told
        assert published.requests == []

    def test_damaged(self, stored: Path) -> None:
        (stored / "evidence" / "x.json").write_text("[]")
        with pytest.raises(FormatError, match=r"x\.json"):
            info("tiny")
        flip(stored / "card.json")
        with pytest.raises(IntegrityError, match=r"card\.json"):
            info("tiny")
        with pytest.raises(NotFoundError, match="nobody"):
            info("nobody")


HEAVY = ("torch", "anndata", "sklearn", "scipy.stats", "pandas", "scanpy", "matplotlib", "huggingface_hub")


@pytest.mark.parametrize("code", ["", "mz.list_manifolds()", "mz.info('tiny')"])
def test_nothing_heavy_is_loaded(stored: Path, code: str) -> None:
    code = (
        f"import sys, manifoldzoo as mz; told = {code or None}; "
        f"print([m for m in {HEAVY} if m in sys.modules], bool(told))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == f"[] {'told = mz' in code}"
