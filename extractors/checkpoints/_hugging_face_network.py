"""Models of the ``transformers`` library, taken apart and read layer by layer."""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from ...cards._errors import CheckpointError
from ._hugging_face_files import Settings, Weights
from ._hugging_face_tokens import Tokens
from ._interface import HeadWeights


class Network(ABC):
    """A model of the library, taken apart.

    Attributes
    ----------
    prefix
        What names of weights begin with in files that hold more than the model.
    ignored
        Names of weights and buffers that are known and not needed.
    layer
        Names of the weights of a layer, by its index.
    table
        Name of the table of token embeddings.
    causal
        Whether a token sees only those before it.
    """

    prefix: ClassVar[str]
    ignored: ClassVar[re.Pattern[str]]
    layer: ClassVar[re.Pattern[str]]
    table: ClassVar[str]
    causal: ClassVar[bool]

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(requires_grad=False)

    @classmethod
    @abstractmethod
    def configuration(cls, settings: Settings) -> Any:
        """Check ``config.json`` and turn it into the library's configuration, without anything that acts."""

    @classmethod
    @abstractmethod
    def build(cls, configuration: Any) -> Any:
        """Build the library's model."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[Any]:
        """The library's layers."""

    @abstractmethod
    def attention_of(self, layer: Any) -> Any:
        """The module of a layer that computes attention from its first argument."""

    @abstractmethod
    def begin(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """Embed tokens; also return what else every layer is given."""

    @abstractmethod
    def end(self, hidden: Tensor) -> Tensor:
        """Turn the output of the last layer into the last hidden state."""

    @abstractmethod
    def heads(self, index: int) -> tuple[HeadWeights, Tensor]:
        """Projections of a layer's heads, and the bias of their values ``(n_heads, d_head)``."""

    @abstractmethod
    def restore_buffers(self) -> None:
        """Compute what a model holds beside its weights; it was built without memory."""

    @property
    def embeddings(self) -> Tensor:
        """Table of token embeddings, ``(n_tokens, d_model)``."""
        table: Tensor = self.model.get_parameter(self.table)
        return table

    @classmethod
    def load(cls, settings: Settings, weights: Weights) -> Self:
        """Build the model that the settings describe around the weights of a file.

        Raises
        ------
        CheckpointError
            If settings and weights disagree, or weights are not finite.
        """
        configuration = cls.configuration(settings)
        _check_sizes(settings, weights, configuration, cls)
        with torch.device("meta"):
            model = cls.build(configuration)
        shapes = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
        weights.check(shapes)
        model.load_state_dict({key: weights.read(key) for key in shapes}, assign=True)
        network = cls(model)
        network.restore_buffers()
        return network

    def fresh(self, seed: int) -> Self:
        """Build the same architecture with the weights that the library starts training from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return type(self)(self.build(copy.deepcopy(self.model.config)))

    def shuffled(self, seed: int) -> Self:
        """Copy the model and permute the entries of each matrix."""
        model = copy.deepcopy(self.model)
        rng = np.random.default_rng(seed)
        for _, parameter in sorted(model.named_parameters()):
            if parameter.ndim >= 2:
                rng.shuffle(parameter.detach().view(-1).numpy())
        return type(self)(model)

    def run(self, tokens: Tokens) -> Tensor:
        """Return the last hidden state, ``(n_cells, n_tokens, d_model)``."""
        hidden, given = self._enter(tokens)
        for layer in self.layers:
            hidden = self._step(layer, hidden, given, "sdpa")
        return self.end(hidden)

    def maps(self, tokens: Tokens, *, weighted: bool) -> Iterator[Tensor]:
        """Yield each layer's attention between tokens, ``(n_cells, n_heads, n_tokens, n_tokens)``."""
        hidden, given = self._enter(tokens)
        for index, layer in enumerate(self.layers):
            hidden, received, maps = self._look(layer, hidden, given)
            if weighted:
                maps = maps.mul_(self._lengths(index, received)[:, :, None, :])
            yield maps

    def _enter(self, tokens: Tokens) -> tuple[Tensor, dict[str, Any]]:
        """Embed tokens and prepare the mask."""
        hidden, given = self.begin(torch.from_numpy(tokens.ids), torch.from_numpy(tokens.positions))
        return hidden, {**given, "attention_mask": tokens.mask(causal=self.causal)}

    def _look(self, layer: Any, hidden: Tensor, given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        """Pass one layer; also return what its attention was given, and its map."""
        seen: list[tuple[Tensor, Tensor]] = []
        hook = self.attention_of(layer).register_forward_hook(
            lambda _, arguments, output: seen.append((arguments[0], output[1]))
        )
        try:
            passed = self._step(layer, hidden, given, "eager")
        finally:
            hook.remove()
        return passed, *seen.pop()

    def _step(self, layer: Any, hidden: Tensor, given: dict[str, Any], kind: str) -> Tensor:
        """Pass one layer; ``eager`` attention shows its map, ``sdpa`` never holds it."""
        # layers share the model's configuration and look there each time
        self.model.config._attn_implementation = kind
        output = layer(hidden, **given)
        passed: Tensor = output[0] if isinstance(output, tuple) else output
        return passed

    def _lengths(self, index: int, received: Tensor) -> Tensor:
        """Length of what each head adds for each token, ``(n_cells, n_heads, n_tokens)``.

        The triangular factor of a head's output projection keeps lengths and is far smaller than the projection.
        """
        heads, bias = self.heads(index)
        values = torch.einsum("ctd,hed->chte", received, heads.value) + bias[:, None, :]
        triangular = torch.linalg.qr(heads.output, mode="r").R
        lengths: Tensor = torch.linalg.vector_norm(values @ triangular.transpose(1, 2), dim=-1)
        return lengths


def _check_sizes(settings: Settings, weights: Weights, configuration: Any, network: type[Network]) -> None:
    """Compare table and layers with the settings before a model of the stated size is built."""
    table = weights.shape(network.table)
    if table is None or len(table) != 2:
        raise CheckpointError(
            f"{weights.path} has no table of tokens ({network.table}) among its {len(weights.places)} weights.",
            f"Check that the weights belong to {settings.path.name}.",
        )
    stated = (configuration.vocab_size, configuration.hidden_size)
    if table != stated:
        raise CheckpointError(
            f"{weights.path}: {network.table} has shape {table}, but {settings.path.name} states {stated[0]} tokens "
            f"of width {stated[1]}."
        )
    layers = {int(found[1]) for key in weights.places if (found := network.layer.match(key))}
    highest = max(layers, default=-1)
    if not len(layers) == highest + 1 == configuration.num_hidden_layers:
        raise CheckpointError(
            f"{weights.path} holds {len(layers)} layers (highest index {highest}) "
            f"but {settings.path.name} states {configuration.num_hidden_layers}."
        )
