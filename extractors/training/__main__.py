"""``python -m manifoldzoo.extractors.training``: train the reference checkpoint."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from ._card import write_card
from ._train import TrainingConfig, run


def main() -> None:
    """Parse the command line, train, evaluate and print the held-out scores."""
    parser = argparse.ArgumentParser(prog="python -m manifoldzoo.extractors.training", description=__doc__)
    parser.add_argument("--train", nargs="+", type=Path, required=True, metavar="H5AD", help="studies to learn from")
    parser.add_argument("--held-out", nargs="+", type=Path, required=True, metavar="H5AD", help="whole unseen studies")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder; an interrupted run there resumes")
    parser.add_argument("--seed", type=int, default=TrainingConfig.seed)
    parser.add_argument("--steps", type=int, default=TrainingConfig.n_steps)
    parser.add_argument("--layers", type=int, default=TrainingConfig.n_layers)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of what makes a run repeatable")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--card",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="also write the card, with the reports of these finished runs",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = replace(TrainingConfig(), seed=options.seed, n_steps=options.steps, n_layers=options.layers)
    report = run(config, options.train, options.held_out, options.out, device=options.device)
    if options.card:
        write_card(options.out, options.card)
    print(json.dumps(report["held_out"], indent=2))


if __name__ == "__main__":
    main()
