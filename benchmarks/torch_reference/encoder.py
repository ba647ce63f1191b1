"""The encoder in PyTorch: transformers' BertModel with sdpa attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import transformers

from metarec_jax.core.types import Params
from metarec_jax.encoder import ModelConfig, Tokens
from metarec_jax.encoder.convert import tensors_from_params


def bert(config: ModelConfig, params: Params) -> Any:
    """transformers' model with our parameters, without dropout."""
    architecture = transformers.BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        layer_norm_eps=config.layer_norm_eps,
    )
    architecture._attn_implementation = "sdpa"
    model = transformers.BertModel(architecture, add_pooling_layer=False).eval()
    tensors = {name: torch.tensor(value) for name, value in tensors_from_params(params, config).items()}
    model.load_state_dict({name: value for name, value in tensors.items() if not name.startswith("pooler.")})
    return model


def compiled(config: ModelConfig, params: Params) -> Any:
    """The same under `torch.compile`; it compiles at the first run of each kind."""
    torch.compiler.reset()
    return torch.compile(bert(config, params), dynamic=False)


def embed(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unit vectors [texts, hidden]: the mean over real tokens."""
    last = model(input_ids=ids, attention_mask=mask).last_hidden_state
    real = mask[..., None].to(last.dtype)
    return torch.nn.functional.normalize((last * real).sum(1) / real.sum(1).clamp(min=1), dim=-1)


def as_tensors(tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, as arguments of the model."""
    return torch.tensor(np.asarray(tokens.ids), dtype=torch.long), torch.tensor(np.asarray(tokens.mask) > 0)


def forward(model: Any, tokens: Tokens) -> Callable[[], torch.Tensor]:
    """Make a function that encodes one batch, without gradient."""
    ids, mask = as_tensors(tokens)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return embed(model, ids, mask)

    return run


def forward_backward(model: Any, tokens: Tokens, weights: np.ndarray) -> Callable[[], dict[str, torch.Tensor]]:
    """Make a function that computes the gradient of the sum of embeddings times `weights`."""
    ids, mask = as_tensors(tokens)
    cotangent = torch.tensor(weights)

    def run() -> dict[str, torch.Tensor]:
        model.zero_grad(set_to_none=True)
        embeddings = embed(model, ids, mask)
        embeddings.backward(cotangent.to(embeddings.dtype))
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    return run


def padded(texts: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask of texts, padded to the longest."""
    length = max(map(len, texts))
    ids = torch.zeros((len(texts), length), dtype=torch.long)
    mask = torch.zeros((len(texts), length), dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = True
    return ids, mask


def by_length(texts: Sequence[Sequence[Any] | np.ndarray], batch: int) -> list[np.ndarray]:
    """Rows of the texts of each batch, longest first."""
    order = np.argsort([-len(text) for text in texts], kind="stable")
    return [order[start : start + batch] for start in range(0, len(texts), batch)]


class Sorted:
    """Texts sorted by length, in batches that are padded to their longest.

    Args:
        model: from `bert`.
        texts: token ids of each text.
        weights: [texts, hidden], cotangent of the embeddings.
        batch: texts of a batch.

    Attributes:
        computed: tokens that are computed, padding included.
    """

    def __init__(self, model: Any, texts: Sequence[np.ndarray], weights: np.ndarray, batch: int):
        self._model, self._weights = model, torch.tensor(weights)
        self._parts = [(rows, *padded([texts[row] for row in rows])) for rows in by_length(texts, batch)]
        self.computed = sum(ids.numel() for _, ids, _ in self._parts)

    def forward(self) -> np.ndarray:
        """Embeddings of all texts."""
        found = np.zeros(self._weights.shape, np.float32)
        with torch.inference_mode():
            for rows, ids, mask in self._parts:
                found[rows] = embed(self._model, ids, mask).numpy()
        return found

    def back(self) -> dict[str, torch.Tensor]:
        """Gradient of the sum of embeddings times their cotangents, batch by batch."""
        self._model.zero_grad(set_to_none=True)
        for rows, ids, mask in self._parts:
            embed(self._model, ids, mask).backward(self._weights[rows])
        return {name: p.grad for name, p in self._model.named_parameters() if p.grad is not None}


def sorted_batching(
    model: Any, tokenizer: Any, texts: Sequence[str], batch: int = 32, max_length: int = 128
) -> Callable[[], np.ndarray]:
    """Make a function that embeds texts as in sentence-transformers: sorted by length, batches padded to their longest.

    Args:
        model: from `bert`.
        tokenizer: a `tokenizers.Tokenizer`, without padding; it is not changed.
        texts: texts to embed.
        batch: texts of a batch; 32 is the default of sentence-transformers.
        max_length: greatest number of tokens of a text, as in `metarec_jax.encoder.encode_table`.
    """
    cutting = type(tokenizer).from_str(tokenizer.to_str())
    cutting.enable_truncation(max_length)

    def run() -> np.ndarray:
        found = np.zeros((len(texts), model.config.hidden_size), np.float32)
        with torch.inference_mode():
            for rows in by_length(texts, batch):
                encoded = [e.ids for e in cutting.encode_batch([texts[row] for row in rows])]
                found[rows] = embed(model, *padded(encoded)).numpy()
        return found

    return run
