"""Published encoders against sentence-transformers, row by row: tokens, prompts, pooling, dense layers and vectors.

python -m benchmarks.checkpoints [NAME_OR_FOLDER ...] [--dims N] [--json OUT]

Needs sentence-transformers (`pip install 'metarec_jax[bench]'`), and a network for checkpoints that are not in the
hub's cache. The exit status is 1 if anything differs, or a checkpoint could not be compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import Encoder, Side, encode_table, load, tokenize
from metarec_jax.encoder.dense_modules import activation_of

CHECKPOINTS = (
    "Alibaba-NLP/gte-modernbert-base",
    "nomic-ai/modernbert-embed-base",
    "Qwen/Qwen3-Embedding-0.6B",
    "intfloat/e5-small-v2",
    "intfloat/multilingual-e5-small",
    "google/embeddinggemma-300m",
    "sentence-transformers/distiluse-base-multilingual-cased-v2",
)
TOLERANCE = 2e-5
"""Largest difference of a number of two vectors of length 1."""
TEXTS = (
    "Alien (1979), science fiction, horror",
    "a film",
    "",
    "  two  spaces,\ta tab\nand a line  ",
    "naïve café, İstanbul, STRASSE Straße",
    "重慶森林 (1994)，愛情片。",
    "фильм о Москве κόσμος שלום हिन्दी",
    "🎬 film 👩‍🚀",
    "What films are like Heat (1995)?",
    "a long text of many words " * 60,
)
SIDES: tuple[Side, Side] = ("query", "document")


@dataclasses.dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        what: what is compared.
        ours, theirs: the two values, as JSON.
        same: whether they agree.
    """

    what: str
    ours: Any
    theirs: Any
    same: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """Comparison of one text on one side.

    Attributes:
        side: "query" or "document".
        text: its first characters.
        tokens: number of tokens.
        same_tokens: whether token ids agree.
        difference: largest difference of a number of the two vectors.
    """

    side: str
    text: str
    tokens: int
    same_tokens: bool
    difference: float


@dataclasses.dataclass(frozen=True)
class Report:
    """Comparison of a checkpoint.

    Attributes:
        name: the checkpoint.
        checks: of what its folder states.
        rows: of texts.
        failure: why it could not be compared; "" where it was.
    """

    name: str
    checks: tuple[Check, ...] = ()
    rows: tuple[Row, ...] = ()
    failure: str = ""

    @property
    def largest(self) -> float:
        """Largest difference of all rows."""
        return max((row.difference for row in self.rows), default=float("nan"))

    @property
    def same(self) -> bool:
        """Whether everything agrees."""
        of_rows = all(row.same_tokens and row.difference <= TOLERANCE for row in self.rows)
        return not self.failure and bool(self.rows) and of_rows and all(check.same for check in self.checks)


def compare(name: str, texts: Sequence[str] = TEXTS, *, dims: int = 0) -> Report:
    """Compare a checkpoint with what sentence-transformers makes of it.

    Args:
        name: folder or hub id.
        texts: texts to encode on both sides.
        dims: number of first numbers that are kept of each vector; 0 keeps all.

    Returns:
        The report.
    """
    from sentence_transformers import SentenceTransformer

    try:
        ours = load(name)
    except MetarecError as error:
        return Report(name, failure=str(error))
    model = SentenceTransformer(name, device="cpu", trust_remote_code=False)
    checks = checks_of(ours, model)
    model.max_seq_length = ours.max_length
    rows = [row for side in SIDES for row in rows_of(ours, model, side, texts, dims)]
    return Report(name, tuple(checks), tuple(rows))


def checks_of(ours: Encoder, model: Any) -> list[Check]:
    """Compare what both read of a checkpoint's folder.

    Args:
        ours: the encoder.
        model: a SentenceTransformer.

    Returns:
        The comparisons: prompts of both sides, pooling, whether a prompt is pooled, and dense layers.
    """
    modules = {kind: [m for m in model if type(m).__name__ == kind] for kind in ("Pooling", "Dense")}
    (pooling,) = modules["Pooling"]
    dense = [
        [m.out_features, m.linear.bias is not None, activation_of(m.activation_function)] for m in modules["Dense"]
    ]
    pairs = [
        *((f"{side} prompt", ours.hints.prompt(side), prompt_of(model, side)) for side in SIDES),
        ("pooling", ours.pooling("auto"), pooling.pooling_mode),
        ("pooled prompt", ours.hints.pool_prompt, bool(pooling.include_prompt)),
        ("dense layers", [list(projection) for projection in ours.config.projections], dense),
        ("greatest length", ours.max_length, model.max_seq_length),
        ("width", ours.config.vector_size, model.get_embedding_dimension()),
    ]
    return [Check(what, mine, other, mine == other) for what, mine, other in pairs]


def prompt_of(model: Any, side: Side) -> str:
    """The prompt that `encode_query` or `encode_document` of a SentenceTransformer puts before a text.

    Args:
        model: a SentenceTransformer.
        side: "query" or "document".

    Returns:
        The prompt; "" for none.
    """
    names = ("query",) if side == "query" else ("document", "passage", "corpus")
    return next((model.prompts[name] for name in (*names, model.default_prompt_name) if model.prompts.get(name)), "")


def rows_of(ours: Encoder, model: Any, side: Side, texts: Sequence[str], dims: int) -> list[Row]:
    """Compare tokens and vectors of texts, both with the prompt that this package puts before them.

    Args:
        ours: the encoder.
        model: a SentenceTransformer.
        side: "query" or "document".
        texts: the texts.
        dims: as for `compare`.

    Returns:
        A row for each text.
    """
    prompt = ours.hints.prompt(side)
    ids = tokenize(ours.tokenizer, [prompt + text for text in texts], ours.max_length).ids
    vectors = encode_table(ours, texts, prompt=prompt, dims=dims)
    options = {"prompt": prompt or None, "normalize_embeddings": True, "truncate_dim": dims or None}
    theirs = np.asarray(model.encode(list(texts), convert_to_numpy=True, **options), np.float32)
    theirs = theirs / np.maximum(np.linalg.norm(theirs, axis=1, keepdims=True), 1e-12)
    rows = []
    for text, own, mine, other in zip(texts, ids, vectors, theirs, strict=True):
        wanted = np.asarray(model.preprocess([prompt + text])["input_ids"][0]).tolist()
        difference = float(np.abs(mine - other).max()) if mine.shape == other.shape else float("inf")
        rows.append(Row(side, text[:40], len(own), own.tolist() == wanted, difference))
    return rows


def table(reports: Sequence[Report]) -> str:
    """Make a Markdown table with a line for each checkpoint, and one for each thing that differs."""
    lines = ["| checkpoint | texts | largest difference | same |", "|---|--:|--:|---|"]
    for report in reports:
        if report.failure:
            lines.append(f"| {report.name} | - | - | not compared: {report.failure:.200} |")
            continue
        lines.append(
            f"| {report.name} | {len(report.rows)} | {report.largest:.1e} | {'yes' if report.same else 'no'} |"
        )
        for check in report.checks:
            if not check.same:
                lines.append(f"| - {check.what}: {check.ours!r:.80}, theirs {check.theirs!r:.80} | | | no |")
        for row in report.rows:
            if not row.same_tokens or row.difference > TOLERANCE:
                what = f"{row.side} {row.text!r}, tokens {'agree' if row.same_tokens else 'differ'}"
                lines.append(f"| - {what} | | {row.difference:.1e} | no |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="folders or hub ids; some published ones where none is given")
    parser.add_argument("--dims", type=int, default=0, help="first numbers that are kept of each vector; 0 keeps all")
    parser.add_argument("--json", type=Path, help="file of results")
    chosen = parser.parse_args(arguments)
    reports = [compare(name, dims=chosen.dims) for name in chosen.names or CHECKPOINTS]
    if chosen.json:
        tree = [dataclasses.asdict(report) for report in reports]
        chosen.json.write_text(json.dumps(tree, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(reports))
    return 0 if all(report.same for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
