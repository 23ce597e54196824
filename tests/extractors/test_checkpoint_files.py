from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._errors import CheckpointError
from manifoldzoo.extractors.checkpoints._files import find_weights, parse_object, read_content, stated_licence
from manifoldzoo.extractors.checkpoints._recognise import looks_like, names_look_like
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.extractors.checkpoints._tensor_file import TensorFile

HUGE = {
    "no whole ZIP archive": ("best_model.pt", torch.arange(4096).numpy().tobytes(), b""),
    "its directory states": (
        "best_model.pt",
        b"PK\x03\x04",
        struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 9, 9, 1 << 29, 1 << 29, 0),
    ),
    "as tensors alone": ("best_model.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b""),
    f"states a header of {1123 << 50}": ("model.safetensors", struct.pack("<Q", 1123 << 50), b""),
    f"states a header of {1 << 29}": ("model.safetensors", struct.pack("<Q", 1 << 29), b""),
    "1073741824 bytes, more than": ("args.json", b"{", b""),
    "more than the 67108864": ("vocab.json", b"{", b""),
}
READ_THEM = """
import sys, time
def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":"))
from manifoldzoo.cards._errors import CheckpointError
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
for folder in sys.argv[1:]:
    before, start = memory("VmRSS"), time.monotonic()
    try:
        read_scgpt(folder)
    except CheckpointError as error:
        print(memory("VmHWM") - before, time.monotonic() - start, error)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it")
def test_a_gigabyte_of_something_else_is_refused_quickly_in_little_memory(tmp_path: Path) -> None:
    folders = []
    for index, (name, start, end) in enumerate(HUGE.values()):
        file = "best_model.pt" if name == "best_model.pt" else "model.safetensors"
        folders.append(write_tiny_scgpt(tmp_path / str(index), file=file))
        with (folders[-1] / name).open("wb") as stream:
            stream.write(start)
            stream.truncate((1 << 30) - len(end))
            stream.seek(0, os.SEEK_END)
            stream.write(end)
    command = [sys.executable, "-c", READ_THEM, *map(str, folders)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = ran.stdout.splitlines()
    for line, named in zip(lines, HUGE, strict=True):
        kilobytes, seconds, message = line.split(" ", 2)
        assert named in message
        assert int(kilobytes) < 20_000
        assert float(seconds) < 5


@pytest.mark.parametrize("name", ["args.json", "vocab.json", "model.safetensors", "gene_offset.safetensors"])
def test_a_git_lfs_pointer_is_recognised(tmp_path: Path, name: str) -> None:
    folder = write_tiny_scgpt(tmp_path)
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(CheckpointError, match=f"{name} is a Git LFS pointer"):
        read_scgpt(folder)


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({}, None),
        ({"args.json": "{}"}, "scgpt"),
        ({"best_model.pt": ""}, "scgpt"),
        ({"args.json": "{}", "config.json": '{"model_type": "bert"}'}, "scgpt"),
        ({"vocab.json": "{}"}, None),
        ({"config.json": '{"model_type": "bert"}', "vocab.json": "{}"}, "geneformer"),
        ({"config.json": '{"model_type": "gpt2"}'}, "cell2sentence"),
        ({"config.json": '{"model_type": "gpt_neox"}'}, "cell2sentence"),
        ({"config.json": '{"model_type": "llama"}'}, "llama"),
        ({"config.json": '{"model_type": 3}'}, None),
        ({"config.json": "[1]"}, None),
        ({"config.json": "{"}, None),
        ({"config.json": "[" * 50_000}, None),
        ({"config.json": '{"model_type": "bert"}' + " " * (1 << 20)}, None),
    ],
)
def test_what_a_folder_looks_like(tmp_path: Path, files: dict[str, str], want: str | None) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert looks_like(tmp_path) == want


def test_what_names_of_weights_look_like() -> None:
    assert names_look_like(["cls.predictions.bias", "bert.embeddings.word_embeddings.weight"]) == "geneformer"
    assert names_look_like(["gpt_neox.embed_in.weight"]) == "cell2sentence"
    assert names_look_like(["transformer.h.0.attn.c_attn.weight"]) == "cell2sentence"
    assert names_look_like(["encoder.layers.0.weight"]) is None
    assert names_look_like([]) is None


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ('{"model_type": "bert"}', "geneformer"),
        ('{"model_type": "gpt_neox"}', "cell2sentence"),
        ('{"model_type": "llama"}', "'llama'"),
        ("{}", "another family"),
        (None, r"args\.json, vocab\.json"),
    ],
)
def test_a_folder_of_another_family_is_named(tmp_path: Path, config: str | None, hint: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=hint) as caught:
        read_scgpt(tmp_path)
    assert "has no args.json; it holds" in caught.value.message


@pytest.mark.parametrize(
    ("key", "family"), [("bert.embeddings.word_embeddings.weight", "geneformer"), ("gpt_neox.a", "cell2sentence")]
)
def test_weights_of_another_family_are_named(tmp_path: Path, key: str, family: str) -> None:
    folder = write_tiny_scgpt(tmp_path)
    save_file({key: torch.zeros(3, 2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"encoder\.embedding\.weight.*look like those of a {family}"):
        read_scgpt(folder)


def test_weights_are_found_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors or best_model\.pt; it holds nothing"):
        find_weights(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        find_weights(tmp_path / "nowhere")
    for name in ("odd.pt", "best_model.pt", "model.safetensors"):
        (tmp_path / name).write_bytes(b"")
        assert find_weights(tmp_path).name == name


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for read in (read_content, TensorFile):
        with pytest.raises(CheckpointError, match=r"nothing\.json cannot be read"):
            read(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_json_that_is_not_an_object_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"a\.json"):
        parse_object(tmp_path / "a.json", content)


@pytest.mark.parametrize(
    ("readme", "licence"),
    [
        (None, "not stated"),
        ("# A model\n---\nlicense: mit\n---\n", "not stated"),
        ("---\nlicense: mit\ntags: [a]\n---\n# A model\n---\nlicense: other\n", "mit"),
        ("---\nlicense: [mit\n---\n", "not stated"),
        ("---\nlicense: [mit]\n---\n", "not stated"),
        ("---\nlicense: mit\ndate: 2024-13-45\n---\n", "not stated"),
        ("---\na: " + "[" * 30_000 + "\n---\n", "not stated"),
        ("---\nlicense: mit\n---\n" + "x" * (1 << 20), "mit"),
    ],
)
def test_licence_is_what_the_model_card_states(tmp_path: Path, readme: str | None, licence: str) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert stated_licence(tmp_path / "README.md") == licence
