from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_scgpt import tiny_scgpt_weights

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it"),
]

# VmHWM starts anew in a new program, which the maximum that the system reports for a child does not.
READ = """
import json, sys
import torch
def memory(name):
    return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":"))
before = memory("VmRSS")
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
checkpoint = read_scgpt(sys.argv[1])
peak = memory("VmHWM") - before
state = checkpoint.model.state_dict()
layer = state["transformer_encoder.layers.11.self_attn.in_proj_weight"]
print(json.dumps({
    "ratio": peak / sum(4 * tensor.numel() for tensor in state.values()),
    "n_genes": len(checkpoint.genes),
    "sizes": [checkpoint.n_layers, checkpoint.n_heads, checkpoint.d_model, checkpoint.max_genes],
    "style": [checkpoint.settings.input_style, checkpoint.settings.n_bins, checkpoint.settings.cls_value],
    "some": layer[1000, :4].tolist(),
}))
"""


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    plain = tiny_scgpt_weights(
        n_tokens=60697, n_layers=12, d_model=512, d_hid=512, input_style="binned", value_style="continuous", seed=0
    )
    return {key.replace(".in_proj_", ".Wqkv."): tensor for key, tensor in plain.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["model.safetensors", "best_model.pt"])
def test_the_size_of_whole_human_is_read_within_1_5_times_its_memory(
    tmp_path: Path, shared: Path, weights: dict[str, torch.Tensor], name: str, dtype: torch.dtype
) -> None:
    for file in ("args.json", "vocab.json"):
        (tmp_path / file).symlink_to(shared / "checkpoints/scgpt_human_meta" / file)
    stored = {key: tensor.to(dtype) for key, tensor in weights.items()}
    (save_file if name.endswith("safetensors") else torch.save)(stored, tmp_path / name)  # type: ignore[operator]
    some = stored["transformer_encoder.layers.11.self_attn.Wqkv.weight"][1000, :4].float().tolist()
    del stored
    ran = subprocess.run([sys.executable, "-c", READ, str(tmp_path)], check=True, capture_output=True, text=True)
    (tmp_path / name).unlink()
    told = json.loads(ran.stdout)
    assert told["ratio"] < 1.5
    assert told["n_genes"] == 60694
    assert told["sizes"] == [12, 8, 512, 1199]
    assert told["style"] == ["binned", 51, -2.0]
    assert told["some"] == some
