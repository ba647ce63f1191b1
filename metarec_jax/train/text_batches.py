"""The texts of a run on the way to an encoder that is trained: on the devices once, picked batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as Spec
from jaxtyping import Array

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.encoder import (
    BertConfig,
    Encoder,
    Execution,
    Texts,
    Tokens,
    choose_execution,
    encode,
    tokenize,
)
from metarec_jax.meta.encoder_step import Chosen, Encode, Exchange, Reading, embed
from metarec_jax.meta.outer import Losses
from metarec_jax.meta.user import Trainable
from metarec_jax.train.experiment import Part
from metarec_jax.train.sharding import SHARDS, by_role, by_user, per_device, replicate, shard_users, total, whole


class TextBatches:
    """The texts that the episodes of a part gather from, of items and of users alike.

    Args:
        config: of the run.
        encoder: whose tokenizer reads the texts.
        item_texts: of the catalogue.
        part: whose user texts.
        mesh: the devices.
        users_per_step: users of a batch, which bound the number of its texts.
        run: how texts are encoded; None chooses by the platform of the devices.

    Attributes:
        devices: how a step encodes, on all of them.
    """

    def __init__(
        self,
        config: Config,
        encoder: Encoder,
        item_texts: Sequence[str],
        part: Part,
        mesh: Mesh,
        users_per_step: int,
        run: Execution | None = None,
    ):
        self._mesh, self._item_count = mesh, len(item_texts)
        texts = (*item_texts, *(part.user_texts or ()))
        of_a_user = config.episodes.buckets[-1] + config.episodes.query + 1
        self._most = users_per_step * of_a_user
        self._most_of_device = -(-users_per_step // mesh.size) * of_a_user
        shared = worth_sharing(len(set(texts)), self._most, self._most_of_device, mesh)
        platform, split = mesh.devices.flat[0].platform, SHARDS in mesh.axis_names
        run = execution_of(config.encoder, platform, split=split) if run is None else run
        per_call = run.tokens_per_call
        self._texts = texts_of(config, encoder, texts, devices=mesh.size if shared else 1, tokens_per_call=per_call)
        self._buckets: tuple[Tokens, ...] = replicate(mesh, self._texts.buckets)
        self._without_text = replicate(mesh, part.tables.users) if part.user_texts is None else None
        self.devices = Devices(config, encoder.config, self._texts.per_call, mesh, shared=shared, run=run)
        self._embed = jax.jit(self.devices.embed_everything)

    def localise(self, episodes: Episodes) -> tuple[Chosen, Episodes]:
        """The distinct texts of a batch, and the batch with slots of their embeddings in place of rows of the tables.

        Episodes are host arrays; what is read is on the devices.
        """
        first = None if self._without_text is not None else self._item_count
        entries, size = texts_used(episodes, first), self._mesh.size
        if size == 1:
            picked, slots = self._texts.pick(*entries, self._most)
        elif self.devices.shared:
            picked, slots = self._texts.pick_shared(*entries, self._most, size)
        else:
            picked, slots = self._texts.pick_apart(*entries, self._most_of_device, size)
        return Chosen(self._buckets, self._put(picked), self._without_text), with_slots(episodes, slots)

    def _put(self, picked: Any) -> Any:
        return replicate(self._mesh, picked) if self._mesh.size == 1 else shard_users(self._mesh, picked)

    def tables(self, params: Params) -> Tables:
        """Embeddings of all texts, in the order of the tables."""
        rows = np.arange(len(self._texts.row_of))
        every, size = np.ones(len(rows), bool), self._mesh.size
        if size == 1:
            picked, slots = self._texts.pick(rows, every, len(rows))
        else:
            picked, slots = self._texts.pick_shared(rows, every, len(rows), size)
        embeddings = self._embed(params, Chosen(self._buckets, self._put(picked)))
        found = _take(embeddings, replicate(self._mesh, slots))
        users = found[self._item_count :] if self._without_text is None else self._without_text
        return Tables(found[: self._item_count], users)


def texts_used(episodes: Episodes, first_user: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Which texts each user of a batch uses, int [users, support + query (+ 1)], and which of them are not padding.

    Args:
        episodes: host arrays.
        first_user: where texts of users begin, after those of items; None where users have no text.
    """
    used, real = zip(*((rows.item, rows.mask > 0) for rows in (episodes.support, episodes.query)))
    if first_user is not None:
        used, real = (*used, first_user + episodes.user[:, None]), (*real, episodes.weight[:, None] > 0)
    return np.concatenate(used, axis=1), np.concatenate(real, axis=1)


def with_slots(episodes: Episodes, slots: np.ndarray) -> Episodes:
    """`episodes` with slots in place of rows of the tables; `slots` are those of `texts_used`."""
    support, query = episodes.support, episodes.query
    first, last = support.item.shape[1], support.item.shape[1] + query.item.shape[1]
    return episodes._replace(
        user=slots[:, last] if slots.shape[1] > last else episodes.user,
        support=support._replace(item=slots[:, :first]),
        query=query._replace(item=slots[:, first:last]),
    )


@jax.jit
def _take(table: Array, rows: Array) -> Array:
    return table[rows]


class Devices:
    """How the devices of a mesh encode the texts of a step: each its own, and what they exchange.

    Texts that many users share are dealt out, and each device gets the embeddings of all (`shared`): least to encode.
    Where the catalogue is large against a batch, few are shared: then each device encodes what its own users use, and
    nothing grows with the number of devices.

    Args:
        config: of the run.
        architecture: of the encoder.
        per_call: texts of a chunk on one device, for each bucket.
        mesh: the devices.
        shared: which of the two.
        run: how layers are computed.
    """

    def __init__(
        self,
        config: Config,
        architecture: BertConfig,
        per_call: tuple[int, ...],
        mesh: Mesh,
        *,
        shared: bool,
        run: Execution,
    ):
        self._mesh, self.shared = mesh, shared
        split = SHARDS in mesh.axis_names
        if split:
            run = run._replace(whole=functools.partial(whole, dtype=config.encoder.dtype))
        # Devices that gather parameters from each other must come by the same number of times.
        turns = functools.partial(jax.lax.pmax, axis_name=mesh.axis_names) if split else _as_it_is
        self.reading = Reading(encode_with(config, architecture, run), per_call, turns=turns)

    @property
    def exchange(self) -> Exchange:
        """What a device gets from the others in a step."""
        mesh = self._mesh
        if mesh.size == 1:
            return Exchange()
        gather = functools.partial(jax.lax.all_gather, axis_name=mesh.axis_names, tiled=True)
        return Exchange(
            total=functools.partial(total, mesh),
            gradient=lambda tree: total(mesh, tree, by_role(mesh, tree)),
            embeddings=gather if self.shared else _as_it_is,
            key=lambda key: jax.random.fold_in(key, jax.lax.axis_index(mesh.axis_names)),
        )

    def spread(self, gradient: Callable[..., Any]) -> Callable[..., Any]:
        """A gradient for one device (see `metarec_jax.meta.encoder_step.make_joint_step`) as one for all."""
        if self._mesh.size == 1:
            return gradient
        users = by_user(self._mesh)

        def own(trainable: Any, chosen: Chosen, *rest: Any) -> Any:
            return gradient(trainable, _own(chosen), *rest)

        def everywhere(trainable: Any, *rest: Any) -> Any:
            roles = by_role(self._mesh, trainable)
            arguments = (roles, _held(users), users, Spec())
            results = (roles, cast("Any", Losses)(Spec(), Spec(), users))
            return per_device(self._mesh, own, arguments, results)(trainable, *rest)

        return everywhere

    def embed_everything(self, params: Params, chosen: Chosen) -> Array:
        """Embeddings of all texts that were picked to be shared, split over the devices."""
        if self._mesh.size == 1:
            return embed(self.reading, params, chosen)
        roles = by_role(self._mesh, Trainable(None, None, params)).encoder
        users = by_user(self._mesh)

        def own(params: Params, chosen: Chosen) -> Array:
            return embed(self.reading, params, _own(chosen))

        return per_device(self._mesh, own, (roles, _held(users)), users)(params, chosen)


def _held(users: Spec) -> Any:
    """How what a step reads is split: all tokens are on each device, and of what is encoded its part."""
    return cast("Any", Chosen)(buckets=Spec(), picked=users, users=Spec())


def _own(chosen: Chosen) -> Chosen:
    """What a device encodes, as of the only one."""
    return chosen._replace(picked=tuple(picked._replace(count=picked.count[0]) for picked in chosen.picked))


def worth_sharing(texts: int, most: int, most_of_device: int, mesh: Mesh) -> bool:
    """Whether dealing texts out to the devices at least halves what each encodes.

    Args:
        texts: that there are.
        most, most_of_device: that a step, and the users of one device in it, use at most.
        mesh: the devices.
    """
    dealt, own = -(-min(texts, most) // mesh.size), min(texts, most_of_device)
    return mesh.size > 1 and 2 * dealt <= own


def _as_it_is(tree: Any) -> Any:
    return tree


def execution_of(config: EncoderConfig, platform: str, *, split: bool = False) -> Execution:
    """How a run computes the layers of its encoder.

    Args:
        config: options of the encoder.
        platform: of the devices: "cpu", "gpu" or "tpu".
        split: the encoder's parameters are split over the devices.
    """
    return choose_execution(platform, fused=config.attention == "fused", split=split)


def encode_with(config: Config, architecture: BertConfig, run: Execution | None = None) -> Encode:
    """The encoder as a function of its parameters: texts become vectors of unit length, pooled as the config says.

    Args:
        config: of the run.
        architecture: of the encoder.
        run: how layers are computed; None chooses for this machine.

    Returns:
        (parameters of the encoder, tokens) -> [texts, hidden].
    """
    chosen = config.encoder
    run = execution_of(chosen, jax.default_backend()) if run is None else run

    def function(params: Params, tokens: Tokens) -> Array:
        return encode(params, architecture, tokens, pooling=chosen.pooling, normalise=True, dtype=chosen.dtype, run=run)

    return function


def texts_of(
    config: Config,
    encoder: Encoder,
    texts: Sequence[str],
    reporter: Reporter = QUIET,
    *,
    split: int = 1,
    devices: int = 1,
    tokens_per_call: int = 0,
) -> Texts:
    """Tokenize texts into length buckets.

    Args:
        config: of the run.
        encoder: its tokenizer.
        texts: to encode.
        reporter: told of texts that are cut; leave it out where `metarec_jax.train.embed.embed` told already.
        split, devices: as for `metarec_jax.encoder.Texts.of`.
        tokens_per_call: most tokens that a device encodes at a time; 0 chooses by platform.

    Returns:
        The buckets.

    Raises:
        MetarecError: the config asks for longer texts than the encoder reads.
    """
    chosen = config.encoder
    if chosen.max_length > encoder.config.max_positions:
        raise MetarecError(
            f"encoder.max_length is {chosen.max_length}, but {encoder.source} has {encoder.config.max_positions} "
            f"positions: use --encoder.max-length {encoder.config.max_positions}"
        )
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    found = tokenize(encoder.tokenizer, list(distinct), chosen.max_length)
    if found.truncated:
        reporter.note(
            f"{found.truncated} of {len(distinct)} texts are longer than {chosen.max_length} tokens and were cut"
        )
    return Texts.of(
        [found.ids[distinct[text]] for text in texts],
        limit=chosen.max_length,
        tokens_per_call=tokens_per_call or choose_execution(jax.default_backend()).tokens_per_call,
        pad=encoder.config.pad_token_id,
        split=split,
        devices=devices,
    )
