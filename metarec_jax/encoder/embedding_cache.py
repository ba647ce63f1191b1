"""Embeddings of a frozen encoder: each distinct text is encoded once, and the table is cached on disk in shards."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.core.stored_columns import blocks
from metarec_jax.encoder.embedding_shards import SHARD, Shard, filled
from metarec_jax.encoder.execution import Execution, choose_execution
from metarec_jax.encoder.forward import encode
from metarec_jax.encoder.model_config import Pooling
from metarec_jax.encoder.padding import chunks
from metarec_jax.encoder.pretrained import Encoder
from metarec_jax.encoder.tokenizer import Tokenised, prompt_length, require_strings, tokenize

_FORMAT = "metarec_jax embeddings 3"


def encode_table(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    pooling: Pooling = "auto",
    prompt: str = "",
    pool_prompt: bool | None = None,
    max_length: int = 0,
    normalise: bool = True,
    dims: int = 0,
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    report: Callable[[str], None] | None = None,
    tokens_per_call: int | None = None,
    dtype: DTypeLike | None = None,
    run: Execution | None = None,
    stored: Literal["float32", "float16"] = "float32",
) -> Float[np.ndarray, "texts width"]:
    """Encode texts, or read their embeddings from a cache on disk.

    Each distinct text is encoded once, in chunks of texts of one padded length; each length is compiled once. Padding
    changes a vector by no more than float32 rounding.

    Args:
        encoder: weights and tokenizer.
        texts: any strings.
        pooling: as for `forward.encode`; "auto" takes the pooling that the checkpoint's folder states.
        prompt: text put before each text, such as ``encoder.hints.prompt("query")``.
        pool_prompt: whether the mean includes the tokens of the prompt; None follows the checkpoint's folder.
        max_length: greatest number of tokens of a text, prompt included; longer texts are cut. 0 takes that of the
            checkpoint (`Encoder.max_length`).
        normalise: whether embeddings are scaled to unit length.
        dims: number of first numbers that are kept of each embedding, before it is scaled; 0 keeps all.
        cache: folder of cached tables, in shards (`metarec_jax.encoder.embedding_shards`) that are named by a hash of
            weights, tokenizer, texts and options. A damaged file is written again. None disables the cache.
        progress: called with (texts done, distinct texts) after each chunk, and once at the end.
        report: called with one sentence if texts were cut to ``max_length``, now or when a cached table was made, and
            with one if the cache folder cannot be written.
        tokens_per_call: greatest number of tokens of one call; None takes 2,048 on a CPU and 32,768 on an accelerator.
        dtype: as for `forward.encode`; each ``dtype`` has its own table.
        run: how layers are computed; None chooses by platform (`choose_execution`).
        stored: precision of the cached tables. float16 halves the files, and rounds every embedding, whether it was
            read from the cache or not.

    Returns:
        float32 [texts, width], in the order of ``texts``.

    Raises:
        MetarecError: ``max_length`` exceeds the encoder's positions or holds no more than the prompt, ``dims`` exceeds
            the width of its vectors, or a text is not a string.
    """
    max_length = max_length or encoder.max_length
    if max_length > encoder.config.max_positions:
        raise MetarecError(
            f"max_length is {max_length}, but {encoder.source} has {encoder.config.max_positions} positions: "
            f"give a max_length of at most {encoder.config.max_positions}"
        )
    encoder.check_dims(dims)
    require_strings(texts)
    pooling = encoder.pooling(pooling)
    skip = prompt_length(encoder.tokenizer, prompt, max_length)
    if pooling != "mean" or (encoder.hints.pool_prompt if pool_prompt is None else pool_prompt):
        skip = 0
    texts = [prompt + text for text in texts]
    distinct = sorted(set(texts))
    places = {text: place for place, text in enumerate(distinct)}
    order = np.fromiter((places[text] for text in texts), np.int64, count=len(texts))
    width, parts = encoder.config.width(dims), list(blocks(len(distinct), SHARD))
    options: dict[str, object] = {"pooling": pooling, "max_length": max_length, "normalise": normalise}
    if skip:
        options["skip"] = skip
    if width != encoder.config.vector_size:
        options["dims"] = dims
    if dtype is not None:
        options["dtype"] = jnp.dtype(dtype).name
    if stored != "float32":
        options["stored"] = stored
    run = choose_execution(jax.default_backend()) if run is None else run
    done = cut = 0

    def encode_shard(number: int, alive: Callable[[], None]) -> Shard:
        tokens = tokenize(encoder.tokenizer, distinct[parts[number]], max_length)

        def told(rows: int) -> None:
            alive()
            if progress is not None:
                progress(done + rows, len(distinct))

        table = _encode_all(encoder, tokens, skip, tokens_per_call, told, (pooling, normalise, dims, dtype, run))
        return Shard(table.astype(stored, copy=False), tokens.truncated)

    paths = [
        None if cache is None else Path(cache) / f"embeddings-{_key(encoder, distinct[part], options)[:32]}.safetensors"
        for part in parts
    ]
    sizes = [part.stop - part.start for part in parts]
    table = np.empty((len(texts), width), np.float32)
    by_shard = np.argsort(order // SHARD, kind="stable")
    ends = np.cumsum(np.bincount(order // SHARD, minlength=len(parts)))
    for number, shard in filled(paths, sizes, encode_shard, width=width, dtype=np.dtype(stored), report=report):
        rows = by_shard[ends[number - 1] if number else 0 : ends[number]]
        table[rows] = shard.table[order[rows] - parts[number].start]
        done, cut = done + sizes[number], cut + shard.truncated
    if cut and report is not None:
        report(f"{cut} of {len(distinct)} texts are longer than {max_length} tokens and were cut")
    if progress is not None:
        progress(len(distinct), len(distinct))
    return table


def texts_of_process(texts: Sequence[str], index: int, count: int) -> list[str]:
    """Choose texts that one of several processes encodes, so that together they fill the shards of a table.

    Args:
        texts: texts of the table.
        index: number of the process.
        count: number of processes.

    Returns:
        The distinct texts of its range of the shards; the ranges of all processes are the table.
    """
    distinct = sorted(set(texts))
    shards = -(-len(distinct) // SHARD)
    first, last = (SHARD * -(-shards * number // count) for number in (index, index + 1))
    return distinct[first:last]


@functools.partial(jax.jit, static_argnames=("config", "pooling", "normalise", "dims", "dtype", "run"))
def _encode_chunk(params, tokens, config, pooling, normalise, dims, dtype, run):
    return encode(params, config, tokens, pooling=pooling, normalise=normalise, dims=dims, dtype=dtype, run=run)


def _encode_all(
    encoder: Encoder,
    tokens: Tokenised,
    skip: int,
    tokens_per_call: int | None,
    watch: Callable[[int], None],
    how: tuple[Pooling, bool, int, DTypeLike | None, Execution],
) -> np.ndarray:
    config = encoder.config
    if tokens_per_call is None:
        tokens_per_call = 2048 if jax.default_backend() == "cpu" else 32768
    params = jax.device_put(encoder.params)
    table = np.zeros((len(tokens.ids), config.width(how[2])), np.float32)
    done = 0
    for chunk in chunks(
        tokens.ids, limit=config.max_positions, tokens_per_call=tokens_per_call, pad=config.pad_token_id, skip=skip
    ):
        vectors = _encode_chunk(params, jax.device_put(chunk.tokens), config, *how)
        table[chunk.rows] = jax.device_get(vectors)[: len(chunk.rows)]
        done += len(chunk.rows)
        watch(done)
    return table


def _key(encoder: Encoder, texts: Sequence[str], options: Mapping[str, object]) -> str:
    total = hashlib.sha256(f"{_FORMAT}\n{encoder.digest}\n{json.dumps(options, sort_keys=True)}\n".encode())
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        total.update(len(data).to_bytes(8, "little"))  # distinguishes ("ab", "c") from ("a", "bc")
        total.update(data)
    return total.hexdigest()
