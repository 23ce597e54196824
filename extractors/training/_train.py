"""Train a small masked-value transformer in scGPT's checkpoint layout."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch.nn import functional as F

from ...cards._errors import CheckpointError, PanelError
from ...manifolds._files import encode_tensors, replacing, write_bytes
from ..checkpoints._scgpt_model import ScGPTModel
from ._data import Study, choose_genes, mask_positions, read_study, sample_tokens
from ._evaluate import MaskSettings, assemble, column_means, mean_where_drawn, predict_masked, score

SPECIAL_TOKENS = ("<pad>", "<cls>", "<eoc>")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the weights, apart from the data.

    ``n_tokens`` genes are drawn per cell and step; ``mask_ratio`` of them are hidden. Values are those of
    the bundled checkpoint.
    """

    seed: int = 0
    n_genes: int = 1200
    n_layers: int = 6
    n_heads: int = 8
    d_model: int = 128
    d_hid: int = 128
    dropout: float = 0.1
    n_tokens: int = 104
    mask_ratio: float = 0.4
    batch_size: int = 32
    n_steps: int = 6000
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    save_every: int = 250


def build_model(config: TrainingConfig, seed: int | None = None) -> ScGPTModel:
    """Build the architecture with the initialisation that ``seed`` gives (the config's own by default)."""
    torch.manual_seed(config.seed if seed is None else seed)
    return ScGPTModel(
        n_tokens=config.n_genes + len(SPECIAL_TOKENS),
        pad_id=config.n_genes,
        d_model=config.d_model,
        n_heads=config.n_heads,
        n_layers=config.n_layers,
        d_hid=config.d_hid,
        dropout=config.dropout,
    )


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine down to zero."""
    n_warm = max(1, round(config.warmup * config.n_steps))
    if step < n_warm:
        return config.learning_rate * (step + 1) / n_warm
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - n_warm) / max(1, config.n_steps - n_warm)))


def train(
    config: TrainingConfig, values: np.ndarray, offset: np.ndarray, out: Path, *, device: str = "cpu"
) -> tuple[ScGPTModel, list[float], float]:
    """Fit the model; resume from ``out/resume.pt`` where an interrupted run left one.

    Every step draws its batch, tokens, mask and dropout from a seed made of ``(config.seed, step)``, so a
    resumed run repeats an uninterrupted one bit for bit on the same machine and number of threads.

    Parameters
    ----------
    values
        Cells on the scale the model reads, ``(n_cells, n_genes)``, NaN where a study lacks the gene.
    offset
        Per-gene constant added to every prediction, ``(n_genes,)``.

    Returns
    -------
    The model, the loss of every step, and the seconds spent over all runs that led here.

    Raises
    ------
    PanelError
        If a study measures fewer genes than are drawn per cell.
    CheckpointError
        If the state left by an interrupted run is damaged, or of other settings or cells.
    """
    n_measured = int((~np.isnan(values)).sum(axis=1).min())
    if n_measured < config.n_tokens:
        raise PanelError(f"A cell has {n_measured} measured genes of the vocabulary, {config.n_tokens} are drawn.")
    torch.use_deterministic_algorithms(mode=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    data, shift = torch.from_numpy(values), torch.from_numpy(offset)
    model = build_model(config).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    identity: dict[str, object] = {"config": asdict(config), "data": _digest(values, offset)}
    first, losses, resume, clock = 0, [], out / "resume.pt", time.monotonic()
    state = _read_state(resume, identity)
    if state is not None:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, losses = state["step"], state["losses"]
        clock -= state["seconds"]
    cls_id = config.n_genes + SPECIAL_TOKENS.index("<cls>")
    model.train()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task(f"training seed {config.seed}", total=config.n_steps, completed=first)
        for step in range(first, config.n_steps):
            draw = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            torch.manual_seed(config.seed * 1_000_003 + step)
            rows = data[torch.randint(len(data), (config.batch_size,), generator=draw)]
            genes = sample_tokens(rows, n_tokens=config.n_tokens, generator=draw)
            masked = mask_positions((len(genes), genes.shape[1]), ratio=config.mask_ratio, generator=draw)
            ids, inputs = assemble(rows, genes, masked, cls_id)
            with torch.autocast(device, torch.bfloat16):
                predicted = model(ids.to(device), inputs.to(device))[:, 1:]
            target = (rows.gather(1, genes) - shift[genes]).to(device)
            loss = F.mse_loss(predicted.float()[masked.to(device)], target[masked.to(device)])
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, config)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
            progress.update(task, advance=1, description=f"training seed {config.seed}, loss {loss.item():.3f}")
            if (step + 1) % config.save_every == 0 or step + 1 == config.n_steps:
                state = {
                    **identity,
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                    "losses": losses,
                    "seconds": time.monotonic() - clock,
                }
                with replacing(resume) as part:
                    torch.save(state, part)
    return model, losses, float(state["seconds"]) if state else 0.0


def _digest(values: np.ndarray, offset: np.ndarray) -> str:
    """SHA-256 of the cells and offsets trained on."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes() + np.ascontiguousarray(offset).tobytes()).hexdigest()


def _read_state(resume: Path, identity: dict[str, object]) -> dict[str, Any] | None:
    """State of an interrupted run of the very same training, ``None`` where there is none."""
    if not resume.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(resume, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{resume} is damaged.", "Delete it to train from the start.") from error
    if {key: state.get(key) for key in identity} != identity:
        raise CheckpointError(
            f"{resume} was written with other settings or cells.", "Choose another folder or delete it."
        )
    return state


def evaluate(
    model: ScGPTModel, config: TrainingConfig, training: np.ndarray, offset: np.ndarray, held_out: Study, device: str
) -> dict[str, dict[str, float]]:
    """Score the model, its random initialisation and model-free baselines on the same masked positions."""
    settings = MaskSettings(n_tokens=config.n_tokens, mask_ratio=config.mask_ratio, seed=20_000)
    cls_id = config.n_genes + SPECIAL_TOKENS.index("<cls>")
    values, shift = torch.from_numpy(held_out.values), torch.from_numpy(offset)
    gene, truth, predicted = predict_masked(model, shift, values, cls_id=cls_id, device=device, settings=settings)
    untrained = build_model(config, seed=config.seed).to(device)
    no_offset = torch.zeros_like(shift)
    _, _, random = predict_masked(untrained, no_offset, values, cls_id=cls_id, device=device, settings=settings)
    drawn = mean_where_drawn(training, settings=settings, fallback=offset)
    count = np.bincount(gene, minlength=config.n_genes)
    oracle = np.bincount(gene, truth, config.n_genes) / np.maximum(count, 1)
    return {
        "trained": score(gene, truth, predicted),
        "random_initialisation": score(gene, truth, random),
        "random_initialisation_plus_offset": score(gene, truth, random + offset[gene]),
        "gene_mean_of_training_studies": score(gene, truth, offset[gene]),
        "gene_mean_where_drawn": score(gene, truth, drawn[gene]),
        "oracle_mean_of_held_out_cells": score(gene, truth, column_means(held_out.values)[gene]),
        "oracle_mean_where_drawn": score(gene, truth, oracle.astype(np.float32)[gene]),
    }


def scgpt_args(config: TrainingConfig) -> dict[str, object]:
    """``args.json`` in scGPT's vocabulary of settings."""
    return {
        "pad_token": "<pad>",
        "pad_value": -2,
        "mask_value": -1,
        "mask_ratio": config.mask_ratio,
        "input_style": "log1p",
        "input_emb_style": "continuous",
        "max_seq_len": config.n_genes + 1,
        "nlayers": config.n_layers,
        "nheads": config.n_heads,
        "embsize": config.d_model,
        "d_hid": config.d_hid,
        "dropout": config.dropout,
        "n_layers_cls": 3,
        "pre_norm": False,
        "fast_transformer": False,
        "no_cls": True,
        "no_cce": True,
        "MVC": False,
        "epochs": None,
        "n_steps": config.n_steps,
        "batch_size": config.batch_size,
        "lr": config.learning_rate,
        "seed": config.seed,
    }


def run(
    config: TrainingConfig, training: list[Path], held_out: list[Path], out: Path, *, device: str = "cpu"
) -> dict[str, object]:
    """Train, evaluate and write a checkpoint folder; returns the report also written to ``training.json``.

    On a folder whose training is complete, only the evaluation is repeated.
    """
    out.mkdir(parents=True, exist_ok=True)
    genes = choose_genes(training, n_genes=config.n_genes)
    if len(genes) != config.n_genes:
        raise PanelError(f"The training studies share {len(genes)} genes, {config.n_genes} are wanted.")
    studies = [read_study(path, genes) for path in training]
    values = np.concatenate([study.values for study in studies])
    offset = values.mean(axis=0)
    model, losses, seconds = train(config, values, offset, out, device=device)
    strangers = [read_study(path, genes) for path in held_out]
    report: dict[str, object] = {
        "config": asdict(config),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "training_studies": [study.manifest for study in studies],
        "held_out_studies": [study.manifest for study in strangers],
        "loss_first_100": float(np.mean(losses[:100])),
        "loss_last_500": float(np.mean(losses[-500:])),
        "held_out": {s.name: evaluate(model, config, values, offset, s, device) for s in strangers},
        "seconds": round(seconds, 1),
    }
    vocabulary = {name: index for index, name in enumerate([*genes, *SPECIAL_TOKENS])}
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    write_bytes(out / "args.json", json.dumps(scgpt_args(config), indent=2).encode() + b"\n")
    write_bytes(out / "vocab.json", json.dumps(vocabulary, indent=0).encode() + b"\n")
    write_bytes(out / "model.safetensors", encode_tensors(weights))
    write_bytes(out / "gene_offset.safetensors", encode_tensors({"offset": offset}))
    write_bytes(out / "training.json", json.dumps(report, indent=2, allow_nan=False).encode() + b"\n")
    return report
