"""Texts of a run whose encoder is trained: each batch packs those that it uses into rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec
from jaxtyping import Array

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.run import Config
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Episodes, Params, Tables
from metarec_jax.encoder import (
    Encoder,
    Execution,
    ModelConfig,
    Texts,
    Tokens,
    choose_execution,
    encode,
    prompt_length,
    tokenize,
)
from metarec_jax.encoder.attention import KEEPS_APART
from metarec_jax.factors.correction import items_of
from metarec_jax.meta.model import Trainable
from metarec_jax.meta.outer import ALONE, Exchange, Losses
from metarec_jax.meta.text_passes import Chosen, Encode, Kept, Reading, embed, fitting_memory
from metarec_jax.train.encoder_options import resolve_encoder
from metarec_jax.train.experiment import Part
from metarec_jax.train.sharding import SHARDS, by_role, by_user, per_device, replicate, shard_users, sums, whole


class TextBatches:
    """The texts of the items, and of the users of a part.

    Args:
        config: config of the run.
        encoder: its tokenizer is used.
        item_texts: texts of the catalogue.
        part: the part, with its users' texts.
        mesh: the devices.
        users_per_step: number of users of a batch, which bounds the number of its texts.
        run: options of computing layers; None chooses by the platform of the devices.

    Attributes:
        devices: how a step encodes texts on all devices.
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
        self._mesh, self._item_count, self._corrected = mesh, len(item_texts), config.factors.train
        users = part.user_texts or ()
        of_a_user = config.episodes.buckets[-1] + config.episodes.query + 1
        self._most = users_per_step * of_a_user
        self._most_of_device = -(-users_per_step // mesh.size) * of_a_user
        distinct = len({*item_texts, *users})
        shared = worth_sharing(distinct, self._most, self._most_of_device, mesh)
        platform, split = mesh.devices.flat[0].platform, SHARDS in mesh.axis_names
        run = execution_of(config.encoder, platform, split=split) if run is None else run
        own = -(-min(distinct, self._most) // mesh.size) if shared else self._most_of_device
        self._texts = texts_of(config, encoder, item_texts, users, most=own, run=run)
        self._without_text = replicate(mesh, part.tables.users) if part.user_texts is None else None
        slots = self._texts.slots(-(-self._most // mesh.size) if shared else self._most_of_device)
        self.devices = Devices(config, encoder.config, self._texts.plan.per_call, slots, mesh, shared=shared, run=run)
        every = self._texts.slots(-(-len(self._texts.text_of) // mesh.size))
        self._embed = jax.jit(functools.partial(self.devices.embed_everything, slots=every))

    def localise(self, episodes: Episodes) -> tuple[Chosen, Episodes]:
        """Pack the distinct texts of a batch, and replace rows of the tables by slots of their embeddings.

        Args:
            episodes: a batch, on the host.

        Returns:
            The texts, on the devices, and the batch, on the host.
        """
        first = None if self._without_text is not None else self._item_count
        entries, size = texts_used(episodes, first), self._mesh.size
        if size == 1:
            picked, slots = self._texts.pick(*entries, self._most)
        elif self.devices.shared:
            picked, slots = self._texts.pick_shared(*entries, self._most, size)
        else:
            picked, slots = self._texts.pick_apart(*entries, self._most_of_device, size)
        items = shard_users(self._mesh, items_of(episodes)) if self._corrected else None
        chosen = Chosen(self._put(picked), self._without_text, items)
        return chosen, with_slots(episodes, slots)

    def _put(self, picked: Any) -> Any:
        return replicate(self._mesh, picked) if self._mesh.size == 1 else shard_users(self._mesh, picked)

    def tables(self, params: Params) -> Tables:
        """Encode all texts.

        Args:
            params: parameters of the encoder.

        Returns:
            The tables, on the devices.
        """
        rows = np.arange(len(self._texts.text_of))
        every, size = np.ones(len(rows), bool), self._mesh.size
        if size == 1:
            picked, slots = self._texts.pick(rows, every, len(rows))
        else:
            picked, slots = self._texts.pick_shared(rows, every, len(rows), size)
        embeddings = self._embed(params, Chosen(self._put(picked)))
        found = _take(embeddings, replicate(self._mesh, slots))
        users = found[self._item_count :] if self._without_text is None else self._without_text
        return Tables(found[: self._item_count], users)


def texts_used(episodes: Episodes, first_user: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Find the texts that each user of a batch uses.

    Args:
        episodes: a batch, on the host.
        first_user: row of the first user's text, after those of items; None where users have no text.

    Returns:
        Rows of texts, int [users, support + query (+ 1)], and bool of the same shape, False for padding.
    """
    used, real = zip(*((rows.item, rows.mask > 0) for rows in (episodes.support, episodes.query)))
    if first_user is not None:
        used, real = (*used, first_user + episodes.user[:, None]), (*real, episodes.weight[:, None] > 0)
    return np.concatenate(used, axis=1), np.concatenate(real, axis=1)


def with_slots(episodes: Episodes, slots: np.ndarray) -> Episodes:
    """Replace rows of the tables by slots of embeddings; random draws for a user do not depend on the slots.

    Args:
        episodes: a batch, on the host.
        slots: int [users, support + query (+ 1)], slots of the texts of `texts_used`.

    Returns:
        The batch.
    """
    support, query = episodes.support, episodes.query
    first, last = support.item.shape[1], support.item.shape[1] + query.item.shape[1]
    own = {"user": slots[:, last], "number": episodes.user} if slots.shape[1] > last else {}
    return episodes._replace(
        **own,
        support=support._replace(item=slots[:, :first]),
        query=query._replace(item=slots[:, first:last]),
    )


@jax.jit
def _take(table: Array, rows: Array) -> Array:
    return table[rows]


class Devices:
    """How the devices of a mesh encode the texts of a step.

    If `shared`, the texts of a batch are divided over the devices, and each device gets all embeddings, so that each
    text is encoded once. Otherwise each device encodes the texts of its own users, and no embeddings are sent: better
    where users have few texts in common, since work and memory of a device then do not grow with the number of devices.

    Args:
        config: config of the run.
        architecture: architecture of the encoder.
        per_call: number of rows of a chunk on one device, for each length.
        slots: number of slots of embeddings of one device.
        mesh: the devices.
        shared: as above.
        run: options of computing layers.

    Attributes:
        keeps: whether a step may keep activations: not with sharded parameters, which every layer gathers again.
    """

    def __init__(
        self,
        config: Config,
        architecture: ModelConfig,
        per_call: tuple[int, ...],
        slots: int,
        mesh: Mesh,
        *,
        shared: bool,
        run: Execution,
    ):
        split = SHARDS in mesh.axis_names
        self._mesh, self.shared, self.keeps = mesh, shared, not split
        if split:
            run = run._replace(whole=functools.partial(whole, dtype=config.encoder.dtype))
        # Devices that gather sharded parameters need equal numbers of iterations.
        turns = functools.partial(jax.lax.pmax, axis_name=mesh.axis_names) if split else _as_it_is
        self.reading = Reading(encode_with(config, architecture, run), per_call, slots, turns=turns, remat=run.remat)

    @property
    def exchange(self) -> Exchange:
        """Communication of a device with the others in a step."""
        mesh = self._mesh
        if mesh.size == 1:
            return ALONE
        gather = functools.partial(jax.lax.all_gather, axis_name=mesh.axis_names, tiled=True)
        return sums(mesh)._replace(
            embeddings=gather if self.shared else _as_it_is,
            key=lambda key: jax.random.fold_in(key, jax.lax.axis_index(mesh.axis_names)),
        )

    def spread(self, gradient: Callable[..., Any]) -> Callable[..., Any]:
        """Transform the gradient function of one device into that of all devices.

        Args:
            gradient: as for `metarec_jax.meta.encoder_step.make_joint_step`.

        Returns:
            A function of whole arrays.
        """
        if self._mesh.size == 1:
            return gradient
        users = by_user(self._mesh)

        def own(trainable: Any, chosen: Chosen, *rest: Any) -> Any:
            return gradient(trainable, _own(chosen), *rest)

        def everywhere(trainable: Any, chosen: Chosen, *rest: Any) -> Any:
            roles = by_role(self._mesh, trainable)
            arguments = (roles, _held(users), users, Spec(), users)
            results = (roles, cast("Any", Losses)(Spec(), Spec(), users), users)
            return per_device(self._mesh, own, arguments, results)(trainable, chosen, *rest)

        return everywhere

    def fitting_memory(
        self, trained: Callable[[Params], tuple[Params, Params]], params: Params, chosen: Chosen, free: int
    ) -> Kept | None:
        """Shapes of the memory for activations of a step on all devices.

        Args:
            trained: splits parameters of the encoder into (trained ones, the others).
            params: parameters of the encoder.
            chosen: texts of a step.
            free: free memory of each device, in bytes.

        Returns:
            jax.ShapeDtypeStruct with the sharding of each array; None if nothing is kept.
        """
        if not self.keeps:
            return None
        mesh, users = self._mesh, by_user(self._mesh)

        def spread(function: Callable[..., Any]) -> Callable[..., Any]:
            def own(params: Params, chosen: Chosen) -> Kept:
                return function(params, _own(chosen))

            return per_device(mesh, own, (Spec(), _held(users)), users) if mesh.size > 1 else function

        given = (chosen._replace(items=None), free)
        shapes = fitting_memory(self.reading, trained, params, *given, spread=spread, devices=mesh.size)
        place = NamedSharding(mesh, users if mesh.size > 1 else Spec())
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes)

    def embed_everything(self, params: Params, chosen: Chosen, *, slots: int) -> Array:
        """Encode texts that are divided over the devices, without gradient.

        Args:
            params: parameters of the encoder.
            chosen: the texts, as `metarec_jax.encoder.Texts.pick_shared` divides them.
            slots: number of slots of embeddings of one device.

        Returns:
            [slots, hidden], split over the devices.
        """
        reading = self.reading._replace(slots=slots)
        if self._mesh.size == 1:
            return embed(reading, params, chosen)
        roles = by_role(self._mesh, Trainable(None, None, params)).encoder
        users = by_user(self._mesh)

        def own(params: Params, chosen: Chosen) -> Array:
            return embed(reading, params, _own(chosen))

        return per_device(self._mesh, own, (roles, _held(users)), users)(params, chosen)


def _held(users: Spec) -> Any:
    """Partition specs of `Chosen`: each device has its own rows."""
    return cast("Any", Chosen)(rows=users, users=Spec())


def _own(chosen: Chosen) -> Chosen:
    """A device's part of the texts, in the form for a single device."""
    return chosen._replace(rows=tuple(rows._replace(count=rows.count[0]) for rows in chosen.rows))


def worth_sharing(texts: int, most: int, most_of_device: int, mesh: Mesh) -> bool:
    """Whether dividing texts over devices at least halves the number that each device encodes.

    Args:
        texts: number of distinct texts.
        most: greatest number of texts that a step uses.
        most_of_device: greatest number of texts that the users of one device use in a step.
        mesh: the devices.

    Returns:
        Whether it does; False on a single device.
    """
    dealt, own = -(-min(texts, most) // mesh.size), min(texts, most_of_device)
    return mesh.size > 1 and 2 * dealt <= own


def _as_it_is(tree: Any) -> Any:
    return tree


def execution_of(config: EncoderConfig, platform: str, *, split: bool = False) -> Execution:
    """Choose how a run computes the layers of its encoder.

    Args:
        config: options of the encoder.
        platform: platform of the devices: "cpu", "gpu" or "tpu".
        split: whether the encoder's parameters are sharded over devices.

    Returns:
        The options.
    """
    return choose_execution(platform, fused=config.attention == "fused", split=split)


def encode_with(config: Config, architecture: ModelConfig, run: Execution | None = None) -> Encode:
    """Make the encoder a function of its parameters; vectors have unit length and the pooling of the config.

    Args:
        config: config of the run.
        architecture: architecture of the encoder.
        run: options of computing layers; None chooses for this machine.

    Returns:
        (parameters of the encoder, rows of texts) -> [rows * texts, hidden].
    """
    chosen = config.encoder
    run = execution_of(chosen, jax.default_backend()) if run is None else run

    def function(params: Params, tokens: Tokens) -> Array:
        how = {"pooling": chosen.pooling, "normalise": True, "dims": chosen.dims, "dtype": chosen.dtype, "run": run}
        return encode(params, architecture, tokens, **how)

    return function


def texts_of(
    config: Config,
    encoder: Encoder,
    items: Sequence[str],
    users: Sequence[str] = (),
    reporter: Reporter = QUIET,
    *,
    most: int = 0,
    split: int = 1,
    run: Execution | None = None,
) -> Texts:
    """Tokenize texts, each with the prompt of its side.

    Args:
        config: config of the run.
        encoder: its tokenizer is used.
        items: texts of items.
        users: texts of users, which follow those of items.
        reporter: shows the number of truncated texts; by default nothing, since `metarec_jax.train.embed.embed` shows
            it.
        most, split: as for `metarec_jax.encoder.Texts.of`.
        run: options of computing layers; None chooses for this machine. Where fused attention does not keep texts
            apart, each text has its own row.

    Returns:
        The texts.

    Raises:
        MetarecError: the config's greatest length exceeds the encoder's number of positions, or holds no more than a
            prompt.
    """
    chosen = resolve_encoder(config.encoder, encoder)
    run = execution_of(chosen, jax.default_backend()) if run is None else run
    texts: list[str] = []
    skip: list[int] = []
    for prompt, own in ((chosen.document_prompt, items), (chosen.query_prompt, users)):
        length = prompt_length(encoder.tokenizer, prompt, chosen.max_length)
        texts += [prompt + text for text in own]
        skip += [0 if chosen.pool_prompt == "yes" else length] * len(own)
    distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    found = tokenize(encoder.tokenizer, list(distinct), chosen.max_length)
    if found.truncated:
        reporter.note(
            f"{found.truncated} of {len(distinct)} texts are longer than {chosen.max_length} tokens and were cut"
        )
    return Texts.of(
        [found.ids[distinct[text]] for text in texts],
        tokens_per_call=run.tokens_per_call,
        most=most,
        width=encoder.config.hidden_size,
        shortest_row=run.shortest_row,
        calls=run.calls,
        pad=encoder.config.pad_token_id,
        split=split,
        skip=skip,
        alone=chosen.max_length if run.attention == "fused" and jax.default_backend() not in KEEPS_APART else 0,
    )
