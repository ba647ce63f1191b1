"""Pooling, normalisation, prompts and greatest length of a checkpoint as its folder states them.

Sentence-transformers (Reimers & Gurevych 2019, arXiv 1908.10084) stores a list of modules next to the weights:
modules.json names them, and 1_Pooling/config.json states how tokens are pooled. config_sentence_transformers.json holds
prompts by name, and sentence_bert_config.json, in the folder of the weights, the greatest number of tokens and whether
texts are put in lower case.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.json_files import read_json
from metarec_jax.encoder.dense_modules import find_dense
from metarec_jax.encoder.model_config import Pooling

_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_COMPUTED = ("mean", "cls", "lasttoken")
_ENDLESS = 1_000_000
"""Numbers of tokens from here on are no limit: transformers writes 10^30 for none."""
_FOLLOWED = ("Transformer", "Pooling", "Normalize")
_PROMPTS = "config_sentence_transformers.json"
_TEXTS = "sentence_bert_config.json"

Side = Literal["query", "document"]
"""What a text is to the encoder: a user's text is a query, an item's text a document."""
_NAMES: dict[Side, tuple[str, ...]] = {
    "query": ("query", "search_query"),
    "document": ("document", "passage", "corpus", "search_document"),
}
"""Names of the prompts of each side: those of `encode_query` and `encode_document` of sentence-transformers, and those
of Nomic's task prefixes."""


class Hints(NamedTuple):
    """How a folder says that its encoder is used.

    Attributes:
        pooling: "mean", "cls", "lasttoken", or a pooling that this package does not compute, such as "max" or
            "mean + max"; None where the folder does not state it.
        normalise: whether vectors are scaled to unit length; None where the folder does not state it.
        others: modules after the encoder that this package leaves out, such as "LayerNorm".
        prompts: (name, text put before each text) of every prompt.
        default_prompt: name of the prompt of a side that has none of its own; None for no such prompt.
        pool_prompt: whether the mean includes the tokens of a prompt.
        max_length: greatest number of tokens of a text; None where the folder does not state it.
        lower_case: whether texts are put in lower case before they are tokenized.
    """

    pooling: str | None = None
    normalise: bool | None = None
    others: tuple[str, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt: str | None = None
    pool_prompt: bool = True
    max_length: int | None = None
    lower_case: bool = False

    def prompt(self, side: Side) -> str:
        """Text put before the texts of a side; "" where the folder states no prompt for it.

        >>> Hints(prompts=(("query", "query: "),)).prompt("query"), Hints().prompt("query")
        ('query: ', '')
        """
        prompts = dict(self.prompts)
        return next((prompts[name] for name in (*_NAMES[side], self.default_prompt) if name in prompts), "")

    def with_prompts(self, query: str, document: str) -> Hints:
        """Replace the prompts of both sides.

        Args:
            query: text put before queries.
            document: text put before documents.

        Returns:
            The hints, unchanged if they have these prompts already.
        """
        if (query, document) == (self.prompt("query"), self.prompt("document")):
            return self
        own = {name for names in _NAMES.values() for name in names}
        others = tuple((name, text) for name, text in self.prompts if name not in own)
        return self._replace(prompts=(("query", query), ("document", document), *others), default_prompt=None)

    def resolve(self, pooling: Pooling) -> Pooling:
        """Replace "auto" by the pooling of the folder, or by "mean" if the folder states none that can be computed.

        >>> Hints("cls").resolve("auto"), Hints("cls").resolve("mean"), Hints("max").resolve("auto")
        ('cls', 'mean', 'mean')
        """
        if pooling != "auto":
            return pooling
        return cast("Pooling", self.pooling) if self.pooling in _COMPUTED else "mean"

    def remarks(self, pooling: Pooling) -> list[str]:
        """A sentence for each part of the hints that an encoder used this way does not follow.

        Args:
            pooling: as configured. Only "auto" promises to follow the folder.
        """
        found = []
        if pooling == "auto" and self.pooling not in (None, *_COMPUTED):
            found.append(
                f"the encoder's folder says pooling {self.pooling!r}, which this package does not compute: "
                "'mean' is used in its place"
            )
        if self.others:
            found.append(f"the encoder's folder has modules that this package leaves out: {', '.join(self.others)}")
        return found

    def unused_prompts(self) -> tuple[str, ...]:
        """Names of all prompts where none of them is for queries or documents; otherwise none."""
        used = {name for names in _NAMES.values() for name in names} | {self.default_prompt}
        names = tuple(name for name, _ in self.prompts)
        return () if used & set(names) else names


def weights_folder(folder: Path) -> Path:
    """Folder of config, weights and tokenizer: `folder`, or the one in it that modules.json names, as 0_Transformer."""
    if (folder / "config.json").exists():
        return folder
    path = next((path for kind, path in read_modules(folder) if kind == "Transformer"), "")
    return folder / path


def read_hints(folder: Path, *, dense: bool = True) -> Hints:
    """Read the hints of a folder; they are empty if it has no readable files of this kind.

    Args:
        folder: folder of the checkpoint.
        dense: whether dense layers after pooling are computed.

    Returns:
        The hints.
    """
    modules = read_modules(folder)
    computed = len(find_dense(folder, modules)) if dense else 0
    kinds = [kind for kind, _ in modules]
    first = kinds.index("Pooling") + 1 if computed else 0
    others = [kind for kind in (*kinds[:first], *kinds[first + computed :]) if kind not in _FOLLOWED]
    settings: Any = next((_read(folder / path / "config.json") for kind, path in modules if kind == "Pooling"), None)
    settings = settings if isinstance(settings, dict) else {}
    prompts, default = _prompts(_read(folder / _PROMPTS))
    return Hints(
        _pooling(settings),
        "Normalize" in kinds if modules else None,
        tuple(others),
        prompts,
        default,
        settings.get("include_prompt") is not False,
        *_of_texts(weights_folder(folder)),
    )


def write_hints(hints: Hints, folder: Path, hidden_size: int, dense: int = 0) -> list[Path]:
    """Write the files that `read_hints` reads, so that a saved encoder is used as before.

    Args:
        hints: what to write; modules are not written if the pooling is not known.
        folder: an existing folder.
        hidden_size: width of a token's vector.
        dense: number of dense layers after pooling.

    Returns:
        The folders of the dense layers, which are not written.
    """
    if hints.prompts:
        _write(folder / _PROMPTS, {"prompts": dict(hints.prompts), "default_prompt_name": hints.default_prompt})
    if hints.max_length is not None or hints.lower_case:
        _write(folder / _TEXTS, {"max_seq_length": hints.max_length, "do_lower_case": hints.lower_case})
    keys = {name: key for key, name in _POOLINGS.items()}
    pooling = hints.pooling or ("mean" if dense else None)
    if pooling not in keys:
        return []
    kinds = ["Transformer", "Pooling", *["Dense"] * dense, *(["Normalize"] if hints.normalise else [])]
    paths = ["", *(f"{i}_{kind}" for i, kind in enumerate(kinds[1:], start=1))]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths))
    ]
    settings = {"word_embedding_dimension": hidden_size} | {key: key == keys[pooling] for key in _POOLINGS}
    (folder / paths[1]).mkdir()
    _write(folder / paths[1] / "config.json", settings | {"include_prompt": hints.pool_prompt})
    _write(folder / "modules.json", modules)
    return [folder / path for kind, path in zip(kinds, paths) if kind == "Dense"]


def read_modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and subfolder of each module; empty where modules.json is not there or not readable."""
    found = _read(folder / "modules.json")
    if not isinstance(found, list):
        return []
    texts = [[str(m.get(key, "")) if isinstance(m, dict) else "" for key in ("type", "path")] for m in found]
    return [(kind.rpartition(".")[2], path) for kind, path in texts]


def _prompts(settings: Any) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """Prompts by name, and the name of the default prompt if there is such a prompt."""
    settings = settings if isinstance(settings, dict) else {}
    found = settings.get("prompts")
    prompts = {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}
    default = settings.get("default_prompt_name")
    return tuple(prompts.items()), default if isinstance(default, str) and default in prompts else None


def _of_texts(folder: Path) -> tuple[int | None, bool]:
    """max_seq_length and do_lower_case of files sentence_*_config.json, whose name has the model's type.

    Of several files, the first that states a length counts, and one that says yes to lower case. Files of version 6,
    which name a task, leave the length to model_max_length of tokenizer_config.json.
    """
    found = map(_read, dict.fromkeys((folder / _TEXTS, *sorted(folder.glob("sentence_*_config.json")))))
    settings = [each for each in found if isinstance(each, dict)]
    lengths = [each.get("max_seq_length") for each in settings]
    if any("transformer_task" in each for each in settings):
        tokenizer = _read(folder / "tokenizer_config.json")
        lengths.append(tokenizer.get("model_max_length") if isinstance(tokenizer, dict) else None)
    length = next((length for length in lengths if type(length) is int and 3 <= length < _ENDLESS), None)
    return length, any(each.get("do_lower_case") is True for each in settings)


def _pooling(settings: dict[str, Any]) -> str | None:
    modes = settings.get("pooling_mode")
    modes = [modes] if isinstance(modes, str) else modes
    if isinstance(modes, list):
        return " + ".join(map(str, modes)) or None
    chosen = [name for key, name in _POOLINGS.items() if settings.get(key) is True]
    return " + ".join(chosen) or None


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except MetarecError:
        return None


def _write(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
