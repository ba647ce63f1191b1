"""Folders of small untrained checkpoints in the layouts of sentence-transformers, and their embeddings by PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metarec_jax import encoder

MODULE = "sentence_transformers.models."


class Layout(NamedTuple):
    """What the files of a checkpoint state, and what an encoder that follows them has to do."""

    prompts: dict[str, Any]
    query: str = ""
    document: str = ""
    pooling: str = "mean"
    pool_prompt: bool = True
    length: int | None = None
    default: str | None = None
    weights: str = ""


BGE_QUERY = "Represent this sentence for searching relevant passages: "
LAYOUTS = {
    "e5": Layout({"query": "query: ", "passage": "passage: "}, "query: ", "passage: ", length=90),
    "bge": Layout({"query": BGE_QUERY}, BGE_QUERY, pooling="cls", length=70),
    "nomic": Layout(
        {"search_query": "search_query: ", "search_document": "search_document: ", "clustering": "clustering: "},
        "search_query: ",
        "search_document: ",
    ),
    "not pooled": Layout(
        {"query": "For search: ", "document": "Stored: "}, "For search: ", "Stored: ", pool_prompt=False, length=80
    ),
    "default for both": Layout({"same": "text: "}, "text: ", "text: ", default="same"),
    "none": Layout({}),
    "weights below": Layout({"query": "query: "}, "query: ", "", length=24, weights="0_Transformer"),
}


def write(folder: Path, layout: Layout) -> Path:
    """Write the checkpoint, with the files that sentence-transformers would write."""
    encoder.save(encoder.load("random"), folder / layout.weights)
    modules = [(layout.weights, "Transformer"), ("1_Pooling", "Pooling")]
    tree = [{"idx": i, "name": str(i), "path": path, "type": MODULE + kind} for i, (path, kind) in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(tree))
    (folder / "1_Pooling").mkdir()
    pooling = {f"pooling_mode_{name}": name.startswith(layout.pooling) for name in ("mean_tokens", "cls_token")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {"include_prompt": layout.pool_prompt}))
    settings = {"__version__": {}, "prompts": layout.prompts, "default_prompt_name": layout.default}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    if layout.length is not None:
        own = {"max_seq_length": layout.length, "do_lower_case": False}
        (folder / layout.weights / "sentence_bert_config.json").write_text(json.dumps(own))
    return folder


def reference(folder: Path, layout: Layout, side: str, texts: list[str]) -> np.ndarray:
    """Embeddings of texts by transformers' tokenizer and PyTorch model, and by the formula of pooling."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / layout.weights)
    model = transformers.AutoModel.from_pretrained(folder / layout.weights).eval()
    prompt = {"query": layout.query, "document": layout.document}[side]
    first = 0 if layout.pool_prompt or not prompt else len(tokenizer(prompt.strip())["input_ids"]) - 1
    vectors = []
    for text in texts:
        ids = tokenizer(prompt + text, truncation=True, max_length=layout.length or 128)["input_ids"]
        with torch.no_grad():
            states = model(torch.tensor([ids])).last_hidden_state[0].numpy().astype(np.float64)
        vectors.append(states[0] if layout.pooling == "cls" else states[first:].mean(axis=0))
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])
