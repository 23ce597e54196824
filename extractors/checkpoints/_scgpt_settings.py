"""What ``args.json`` and ``vocab.json`` of the scGPT family say of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeGuard, get_args

from ...cards._errors import CheckpointError
from ._scgpt_model import DecoderKind, ScGPTModel, ValueStyle

CLS = "<cls>"
_MOST_BINS = 1 << 16

InputStyle = Literal["log1p", "normed_raw", "binned", "counts"]
"""What a model reads of a cell; ``counts`` is scFormer's, the others are scGPT's words."""


@dataclass(frozen=True)
class ScGPTSettings:
    """What is known of the architecture and of its input.

    Attributes
    ----------
    n_layers, n_heads, d_model, d_hid
        ``nlayers``, ``nheads``, ``embsize`` and ``d_hid``.
    max_seq_len
        Longest sequence, ``<cls>`` included.
    pre_norm
        Whether layers normalise before attention; scGPT's default is after.
    pad_token
        Name of the padding token.
    input_style
        ``log1p`` of counts scaled to 10,000 per cell; those scaled counts themselves (``normed_raw``); their rank in
        ``n_bins`` bins (``binned``); or raw ``counts``, which scFormer read before there was such a setting.
    value_style
        ``input_emb_style``.
    n_bins
        Bins of a cell's values, one of them for zero; 0 where nothing is binned.
    mask_value
        What stands for a value to be predicted.
    cls_value
        What stands beside ``<cls>``: scGPT's pre-training put its ``pad_value`` there, which settings with
        ``training_tasks`` tell; its fine-tuning and scFormer put 0.
    fast_transformer
        Whether flash attention was used; ``None`` where it is not stated.
    decoder, batch_norm
        What the weights have (see ``ScGPTModel``).
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_hid: int
    max_seq_len: int
    pre_norm: bool
    pad_token: str
    input_style: InputStyle = "log1p"
    value_style: ValueStyle = "continuous"
    n_bins: int = 0
    mask_value: float = -1.0
    cls_value: float = 0.0
    fast_transformer: bool | None = None
    decoder: DecoderKind = "mlp"
    batch_norm: bool = False

    def build(self, n_tokens: int, pad_id: int) -> ScGPTModel:
        """Build the network, with fresh weights, in evaluation mode and without gradients."""
        model = ScGPTModel(
            n_tokens=n_tokens,
            pad_id=pad_id,
            d_model=self.d_model,
            n_heads=self.n_heads,
            n_layers=self.n_layers,
            d_hid=self.d_hid,
            pre_norm=self.pre_norm,
            # A model that states pre_norm without flash attention is read as PyTorch's norm_first: our choice, because
            # scGPT itself passes over the setting there.
            flash=bool(self.fast_transformer),
            value_style=self.value_style,
            n_categories=_n_categories(self.n_bins),
            decoder=self.decoder,
            batch_norm=self.batch_norm,
        )
        return model.eval().requires_grad_(requires_grad=False)


def _n_categories(n_bins: int) -> int:
    """Rows of a table of values: bins, padding and mask."""
    return n_bins + 2


def parse_settings(path: Path, args: dict[str, object], decoder: DecoderKind) -> ScGPTSettings:
    """Take the architecture from ``args.json``.

    Parameters
    ----------
    path
        Named in errors.
    args
        Its content.
    decoder
        What the weights have; scFormer's ``linear`` one tells raw counts where ``input_style`` is not stated.

    Raises
    ------
    CheckpointError
        If a setting is missing, of a wrong type, contradicts another, or asks for what is not computed here.
    """
    input_style = "counts" if decoder == "linear" and "input_style" not in args else args.get("input_style")
    value_style = args.get("input_emb_style", "continuous")
    if not _is_input_style(input_style):
        raise CheckpointError(
            f"{path} states input_style {input_style!r}, expected 'log1p', 'normed_raw', 'binned' or 'counts'.",
            "Only models with scFormer's linear decoder are read without it, on raw counts.",
        )
    if not _is_value_style(value_style):
        raise CheckpointError(
            f"{path} states input_emb_style {value_style!r}, expected 'continuous', 'category' or 'scaling'."
        )
    binned = input_style == "binned"
    if value_style == ("scaling" if binned else "category"):
        raise CheckpointError(
            f"{path} states input_emb_style {value_style!r} for input_style {input_style!r}, which scGPT excludes."
        )
    if not isinstance(pad_token := args.get("pad_token", "<pad>"), str):
        raise CheckpointError(f"{path} states pad_token {pad_token!r}, expected the name of a token.")
    settings = ScGPTSettings(
        n_layers=_count(path, args, "nlayers"),
        n_heads=_count(path, args, "nheads"),
        d_model=_count(path, args, "embsize"),
        d_hid=_count(path, args, "d_hid"),
        max_seq_len=_count(path, args, "max_seq_len", minimum=2),
        pre_norm=_flag(path, args, "pre_norm") or False,
        pad_token=pad_token,
        input_style=input_style,
        value_style=value_style,
        n_bins=_count(path, args, "n_bins", minimum=2) if binned else 0,
        mask_value=_number(path, args, "mask_value", -1.0),
        cls_value=_number(path, args, "pad_value", 0.0) if "training_tasks" in args else 0.0,
        fast_transformer=_flag(path, args, "fast_transformer"),
        decoder=decoder,
    )
    if settings.n_bins > _MOST_BINS:
        raise CheckpointError(f"{path} states n_bins {settings.n_bins}, expected at most {_MOST_BINS}.")
    if settings.d_model % settings.n_heads:
        raise CheckpointError(f"{path}: embsize {settings.d_model} is not a multiple of nheads {settings.n_heads}.")
    if value_style == "category":
        _check_categories(path, settings)
    return settings


def _check_categories(path: Path, settings: ScGPTSettings) -> None:
    """Check that values which stand for something else have a row in the table of values."""
    n = _n_categories(settings.n_bins)
    for name, value in (("mask_value", settings.mask_value), ("pad_value", settings.cls_value)):
        if not (value.is_integer() and 0 <= value < n):
            raise CheckpointError(f"{path} states {name} {value:g}, expected one of the {n} categories from 0.")


def _is_input_style(value: object) -> TypeGuard[InputStyle]:
    """Whether a value is one of the known input styles."""
    return isinstance(value, str) and value in get_args(InputStyle)


def _is_value_style(value: object) -> TypeGuard[ValueStyle]:
    """Whether a value is one of the known embedding styles."""
    return isinstance(value, str) and value in get_args(ValueStyle)


def _count(path: Path, args: dict[str, object], key: str, minimum: int = 1) -> int:
    """Take a whole number from ``args.json``."""
    value = args.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise CheckpointError(f"{path} states {key} {value!r}, expected a whole number of at least {minimum}.")
    return value


def _number(path: Path, args: dict[str, object], key: str, default: float) -> float:
    """Take a finite number from ``args.json``."""
    value = args.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise CheckpointError(f"{path} states {key} {value!r}, expected a number.")
    return float(value)


def _flag(path: Path, args: dict[str, object], key: str) -> bool | None:
    """Take true or false from ``args.json``, ``None`` where it is not stated."""
    value = args.get(key)
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(f"{path} states {key} {value!r}, expected true or false.")
    return value


def parse_vocabulary(path: Path, vocabulary: dict[str, object], pad_token: str) -> dict[str, int]:
    """Check that ``vocab.json`` numbers its tokens 0 to n - 1 and has the special ones.

    Raises
    ------
    CheckpointError
        If it does not.
    """
    ids = {
        token: index for token, index in vocabulary.items() if isinstance(index, int) and not isinstance(index, bool)
    }
    if len(ids) != len(vocabulary) or sorted(ids.values()) != list(range(len(vocabulary))):
        raise CheckpointError(
            f"{path} must number its {len(vocabulary)} tokens from 0 to {len(vocabulary) - 1}, each once."
        )
    missing = [token for token in (pad_token, CLS) if token not in ids]
    if missing:
        raise CheckpointError(f"{path} has no token {missing[0]}.")
    return ids
