"""Compare ``attention_mean`` with a plain PyTorch loop over cells: ``python benchmarks/bench_extract.py``.

Both run models of the scGPT layout with the same random weights over the same random cells, interleaved, for heads
kept apart and for heads averaged, and must agree. The plain loop is an encoder of ``nn.MultiheadAttention`` with
``need_weights=True, average_attn_weights=False``, one cell at a time, whose maps are added to float64 sums by fancy
indexing of NumPy or of PyTorch. Seconds per cell are the least of several repeats, processor time with one thread
(other processes disturb it less) and wall time with more; those of ``attention_mean`` begin after its first report of
progress: like the loop's, they leave out setting up the sums. The limit is the rate of a large float32 product in the
same run and threads: ``gflop_per_cell`` counts the products of the model alone, so softmax and adding come on top.
Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, read_scgpt
from manifoldzoo.extractors.checkpoints._scgpt_model import ScGPTModel
from manifoldzoo.extractors.operators._attention import AttentionMean, attention_mean

N_GENES = 1200


@dataclass(frozen=True)
class Size:
    """A model, and how many genes its cells express."""

    n_layers: int
    n_heads: int
    d_model: int
    expressed: int
    n_few: int
    n_many: int

    def n_sums(self, *, per_head: bool) -> int:
        return self.n_layers * (self.n_heads if per_head else 1) * N_GENES**2

    def flops(self, n_genes: float) -> float:
        """Products of one cell; of the last layer those of its attention only."""
        n, d = n_genes + 1, self.d_model
        projections, scores, rest = 4 * n * d * d, 2 * n * n * d, 2 * n * d * d + 2 * n * n * d + 6 * n * d * d
        return self.n_layers * (projections + scores) + (self.n_layers - 1) * rest


SIZES = {
    "reference": Size(6, 8, 128, 250, 16, 136),
    "scgpt": Size(12, 8, 512, 250, 4, 68),
    "scgpt-all-genes": Size(12, 8, 512, 1200, 1, 3),
}


class PlainLayer(nn.Module):
    """A post-norm encoder layer with its attention in the open."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d_model, n_heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mixed, attention = self.self_attn(x, x, x, need_weights=True, average_attn_weights=False)
        x = self.norm1(x + mixed)
        return self.norm2(x + self.linear2(F.relu(self.linear1(x)))), attention


class PlainLoop:
    """What one writes first."""

    def __init__(self, checkpoint: ScGPTCheckpoint, n_values: int) -> None:
        self.checkpoint = checkpoint
        self.layers = [PlainLayer(checkpoint.d_model, checkpoint.n_heads).eval() for _ in range(checkpoint.n_layers)]
        for mine, theirs in zip(self.layers, checkpoint.model.transformer_encoder.layers, strict=True):
            mine.load_state_dict(theirs.state_dict())
        self.sums = np.zeros(n_values)

    @torch.no_grad()
    def __call__(self, cells: sparse.csr_array, *, per_head: bool, numpy: bool) -> NDArray[np.float64]:
        """Add the maps of the cells, ``(n_layers[, n_heads], n_genes, n_genes)``, to what earlier calls added."""
        source = self.checkpoint
        shape = (source.n_layers, *([source.n_heads] if per_head else []), N_GENES, N_GENES)
        total = self.sums[: int(np.prod(shape))].reshape(shape)
        tensor = torch.from_numpy(total)
        for row in range(cells.shape[0]):
            stored = slice(cells.indptr[row], cells.indptr[row + 1])
            genes, values = cells.indices[stored], cells.data[stored]
            ids = torch.tensor([[source.cls_id, *source.token_ids[genes]]])
            x = source.model.embed(ids, torch.tensor([[0.0, *values.tolist()]]))
            index = torch.from_numpy(genes.astype(np.int64))
            for layer, module in enumerate(self.layers):
                x, attention = module(x)
                maps = attention[0, :, 1:, 1:] if per_head else attention[0, :, 1:, 1:].mean(0)
                if numpy:
                    total[layer][..., genes[:, None], genes] += maps.numpy()
                else:
                    tensor[layer][..., index[:, None], index] += maps
        return total


def make_checkpoint(size: Size, folder: Path) -> ScGPTCheckpoint:
    """Write and read a random model."""
    torch.manual_seed(0)
    tokens = ["<pad>", "<cls>", *(f"G{index}" for index in range(N_GENES))]
    model = ScGPTModel(
        n_tokens=len(tokens),
        pad_id=0,
        d_model=size.d_model,
        n_heads=size.n_heads,
        n_layers=size.n_layers,
        d_hid=size.d_model,
    )
    settings = {"nlayers": size.n_layers, "nheads": size.n_heads, "embsize": size.d_model, "d_hid": size.d_model}
    settings |= {"max_seq_len": N_GENES + 1, "input_style": "log1p", "input_emb_style": "continuous"}
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "args.json").write_text(json.dumps(settings | {"pad_token": "<pad>", "pad_value": 0, "mask_value": -1}))
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    return read_scgpt(folder)


def random_cells(n_cells: int, expressed: int) -> sparse.csr_array:
    """Draw log1p cells with ``expressed`` genes each."""
    rng = np.random.default_rng(0)
    rows = np.zeros((n_cells, N_GENES), dtype=np.float32)
    for row in rows:
        row[rng.permutation(N_GENES)[:expressed]] = rng.gamma(2.0, 0.8, expressed).clip(0.1, 8.0)
    return sparse.csr_array(rows)


def now() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def seconds(work: Callable[[], Any]) -> float:
    started = now()
    work()
    return now() - started


def matmul_rate(n: int = 2048) -> float:
    """Floating-point operations per second of a large float32 product."""
    a, b, out = torch.rand(n, n), torch.rand(n, n), torch.empty(n, n)
    torch.mm(a, b, out=out)
    return 2 * n**3 / min(seconds(lambda: torch.mm(a, b, out=out)) for _ in range(3))


def run_model(checkpoint: ScGPTCheckpoint, cells: sparse.csr_array) -> None:
    """Attention of every layer, unused: the model's part of the work."""
    for row in range(cells.shape[0]):
        stored = slice(cells.indptr[row], cells.indptr[row + 1])
        for _ in checkpoint.attention(cells.indices[stored][None].astype(np.int64), cells.data[stored][None]):
            pass


def steady(checkpoint: ScGPTCheckpoint, cells: sparse.csr_array, *, per_head: bool) -> float:
    """Seconds per cell of ``attention_mean`` once it is under way."""
    told: list[tuple[float, int]] = []
    attention_mean(
        checkpoint,
        cells,
        checkpoint.genes,
        per_head=per_head,
        progress=lambda n: told.append((now(), n)),
    )
    return (told[-1][0] - told[0][0]) / sum(n for _, n in told[1:])


def compare(size: Size, folder: Path, repeats: int) -> dict[str, Any]:
    """Times, ratios and agreement at one size."""
    checkpoint = make_checkpoint(size, folder)
    cells = random_cells(size.n_many, size.expressed)
    few, flops = cells[: size.n_few], size.flops(size.expressed)
    report: dict[str, Any] = {"model": vars(size), "gflop_per_cell": round(flops / 1e9, 3)}
    loop = PlainLoop(checkpoint, size.n_sums(per_head=True))
    rates, alone = [], []
    for per_head in (True, False):
        # compiles the kernels, too
        result = attention_mean(checkpoint, few, checkpoint.genes, per_head=per_head)
        loop.sums[:] = 0
        agree = difference(result, loop(few, per_head=per_head, numpy=True))
        del result
        ours: list[float] = []
        plain: dict[str, list[float]] = {"numpy": [], "torch": []}
        for _ in range(repeats):
            rates.append(matmul_rate())
            alone.append(seconds(lambda: run_model(checkpoint, few)) / size.n_few)
            ours.append(steady(checkpoint, cells, per_head=per_head))
            for kind, times in plain.items():
                arguments = {"per_head": per_head, "numpy": kind == "numpy"}
                times.append(seconds(lambda given=arguments: loop(few, **given)) / size.n_few)
        best = min(ours)
        report["heads apart" if per_head else "heads averaged"] = {
            "seconds_per_cell": round(best, 6),
            "plain_seconds_per_cell": {kind: round(min(times), 6) for kind, times in plain.items()},
            "times_faster_than_plain": {kind: round(min(times) / best, 2) for kind, times in plain.items()},
            "gflops": round(flops / best / 1e9, 1),
            "largest_difference": agree,
        }
    report["model_alone_seconds_per_cell"] = round(min(alone), 6)
    report["matmul_gflops"] = round(max(rates) / 1e9, 1)
    report["seconds_per_cell_at_that_rate"] = round(flops / max(rates), 6)
    return report


def difference(result: AttentionMean, sums: NDArray[np.float64]) -> float:
    """Largest relative difference to the loop, which must be one of rounding."""
    divisor, largest = np.maximum(result.support, 1), 0.0
    for mine, theirs in zip(result.layers, sums, strict=True):
        largest = max(largest, float(np.abs(mine - theirs / divisor).max() / np.abs(mine).max()))
    assert largest < 1e-5, largest
    return largest


def peak(size: Size, folder: Path, n_cells: int, *, per_head: bool) -> None:
    """Print by how many bytes ``attention_mean`` raises the memory of this process."""
    checkpoint, cells = make_checkpoint(size, folder), random_cells(n_cells, size.expressed)
    # compiles the kernels
    attention_mean(checkpoint, random_cells(2, 200)[:, :100], checkpoint.genes[:100], per_head=per_head)
    # the kernel's own high-water mark would be that of the process that started this one
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    attention_mean(checkpoint, cells, checkpoint.genes, per_head=per_head)
    print(resident("VmHWM") - before)


def resident(key: str) -> int:
    """Bytes of this process in memory, now or at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def memory(name: str) -> dict[str, Any]:
    """Peak memory of fresh processes at two numbers of cells, against that of the sums."""
    report: dict[str, Any] = {}
    size = SIZES[name]
    for per_head in (True, False):
        sums, peaks = 8 * size.n_sums(per_head=per_head), {}
        for n_cells in (size.n_few, 3 * size.n_few):
            command = [sys.executable, __file__, "--peak", name, str(n_cells), str(int(per_head))]
            peaks[n_cells] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        report["heads apart" if per_head else "heads averaged"] = {
            "sums_mb": round(sums / 1e6, 1),
            "peak_mb_at_cells": {n_cells: round(used / 1e6, 1) for n_cells, used in peaks.items()},
            "peak_over_sums": round(max(peaks.values()) / sums, 2),
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["reference", "scgpt"])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.peak:
            name, n_cells, per_head = options.peak
            peak(SIZES[name], Path(folder), int(n_cells), per_head=bool(int(per_head)))
            return
        report: dict[str, Any] = {"threads": options.threads, "torch": torch.__version__, "sizes": {}}
        for name in options.sizes:
            report["sizes"][name] = compare(SIZES[name], Path(folder), options.repeats)
            if not options.no_memory:
                report["sizes"][name]["memory"] = memory(name)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
