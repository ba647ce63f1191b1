"""Construction of the parts of a pretraining from a config: data, division, batches, programs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.jax_settings import check_jax
from metarec_jax.core.progress import QUIET, Reporter
from metarec_jax.core.types import Interactions
from metarec_jax.data import load
from metarec_jax.data.fingerprint import fingerprint_with_texts, input_digests
from metarec_jax.data.leakage import refuse_leak
from metarec_jax.data.negatives import with_negatives
from metarec_jax.data.splits import split_users
from metarec_jax.encoder import Encoder, remarks
from metarec_jax.encoder import load as load_encoder
from metarec_jax.encoder.mlm_head import require_masked_head
from metarec_jax.meta.text_passes import Chosen, Reading, embed
from metarec_jax.train.checks import check_encoder
from metarec_jax.train.encoder_options import resolve_encoder
from metarec_jax.train.pretraining.batches import Likes, LikeSource, StepSource
from metarec_jax.train.pretraining.contrastive import contrastive_loss
from metarec_jax.train.pretraining.evaluate import Judge, hide_once, judge_with
from metarec_jax.train.pretraining.held_out import Seen, seen
from metarec_jax.train.pretraining.masking import Vocabulary
from metarec_jax.train.pretraining.mlm import Sum, mlm_loss
from metarec_jax.train.pretraining.step import Losses, PretrainState, liked_gradient, mlm_gradient, update
from metarec_jax.train.pretraining.text_batches import Document, Frame, PassageSource, documents
from metarec_jax.train.pretraining.user_text import liked_items, sentences
from metarec_jax.train.sharding import USERS, replicate, shard_users, user_mesh
from metarec_jax.train.text_batches import texts_of
from metarec_jax.train.text_devices import encode_with


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The parts of a pretraining.

    Attributes:
        config: config of the pretraining.
        data: the interactions.
        seen: the part of the data that is read.
        encoder: encoder before the pretraining.
        mesh: the devices.
        source: inputs of every step.
        step: (state, number of the step) -> (state after it, losses before it); it donates the memory of its state.
        judge: weights -> metrics on held-out data.
    """

    config: PretrainConfig
    data: Interactions
    seen: Seen
    encoder: Encoder
    mesh: Mesh
    source: StepSource
    step: Callable[[PretrainState, int], tuple[PretrainState, Losses]]
    judge: Judge

    def put(self, tree: Any) -> Any:
        """Put a whole copy of a tree on each device."""
        return replicate(self.mesh, tree)

    def fingerprint(self) -> str:
        """sha256 of all inputs: equal fingerprints and configs give equal results."""
        return fingerprint_with_texts(self.data, self.encoder.digest)

    def inputs(self) -> dict[str, str]:
        """Digests of all that is read: `fingerprint` as "sha256", and those of its parts."""
        return {"sha256": self.fingerprint(), **input_digests(self.data, self.encoder.digest_with_head)}


def build(
    config: PretrainConfig,
    *,
    data: Interactions | None = None,
    encoder: Encoder | None = None,
    reporter: Reporter = QUIET,
) -> Pretraining:
    """Build the parts of a pretraining: division, batches, and compiled functions.

    Args:
        config: config of the pretraining.
        data: interactions; None loads what ``config.data`` names.
        encoder: the encoder; None reads the one that ``config.encoder`` names.
        reporter: shows progress.

    Returns:
        The parts.

    Raises:
        MetarecError: the input of a step is not valid, or a setting of JAX is not.
    """
    check_jax()
    data = load(config.data, seed=config.seed, reporter=reporter) if data is None else data
    if config.data.negatives:

        def trained(rows: Interactions) -> np.ndarray:
            return np.flatnonzero(np.isin(rows.user, split_users(rows, config.episodes, config.seed).train))

        data = with_negatives(data, config.data.negatives, config.data.negatives_popularity, config.seed, trained)
    reporter.note(f"{data.source}: {len(data):,} interactions, {len(data.users):,} users, {len(data.items):,} items")
    for note in data.notes:
        reporter.note(note)
    read = seen(data, config)
    reporter.note(
        f"read are {int(read.rows.sum()):,} interactions of {len(read.splits.train)} training users; validation and "
        f"test users and {int(read.cold.sum())} of {len(data.items)} items are held out"
    )
    refuse_leak(config.encoder.path, data, read.splits, cold=read.cold)
    encoder = load_encoder(config.encoder.path, dense=config.encoder.dense) if encoder is None else encoder
    check_encoder(config.encoder, encoder)
    for remark in remarks(encoder, config.encoder.pooling):
        reporter.note(remark)
    config = dataclasses.replace(config, encoder=resolve_encoder(config.encoder, encoder, reporter))
    mesh = user_mesh(config.devices)
    masked = _Masked(config, data, read, encoder, mesh, reporter) if config.hides else None
    liked = _Liked(config, data, read, encoder, mesh, reporter) if config.contrasts else None
    source = StepSource(
        steps=config.steps,
        items=masked.items if masked and config.mlm.item_share > 0 else None,
        behaviour=masked.behaviour if masked and config.mlm.item_share < 1 else None,
        item_share=config.mlm.item_share,
        likes=liked.training if liked else None,
    )
    step = _step(config, source, masked, liked, mesh)
    judge = judge_with(
        masked.held_out if masked else {},
        masked.loss if masked else _nothing,
        liked.held_out if liked else {},
        liked.loss if liked else _nothing,
    )
    return Pretraining(config, data, read, encoder, mesh, source, step, judge)


class _Masked:
    """Masked language modelling: batches of training and evaluation, and the programs for both."""

    def __init__(
        self, config: PretrainConfig, data: Interactions, read: Seen, encoder: Encoder, mesh: Mesh, reporter: Reporter
    ):
        require_masked_head(encoder.config)
        vocabulary = Vocabulary.of(encoder.tokenizer)
        if encoder.head is None:
            reporter.note(
                f"{encoder.source} has no head for masked words (or one with a separate vocabulary): it starts as the "
                "identity, so perplexities are high at first"
            )
        self._mesh = mesh
        cut: set[bytes] = set()

        def passages(found: list[Document], number: int, shuffled: bool = True) -> PassageSource:
            source = PassageSource(
                documents=found,
                frame=Frame.of(encoder.tokenizer),
                max_length=config.encoder.max_length,
                tokens_per_batch=config.mlm.tokens_per_step,
                pad=encoder.config.pad_token_id,
                seed=(config.seed, number),
                split=mesh.size,
                shuffled=shuffled,
            )
            cut.update(source.cut)
            return source

        items = documents(encoder.tokenizer, [[text] for text in data.items.texts])
        known = ~read.cold[data.item]
        told = functools.partial(sentences, data)
        self.items = passages([item for item, cold in zip(items, read.cold) if not cold], 1)
        self.behaviour = passages(documents(encoder.tokenizer, told(read.splits.train, read.rows)), 2)
        judged = {
            "users": passages(documents(encoder.tokenizer, told(read.splits.validation, known)), 3, False),
            "items": passages([item for item, cold in zip(items, read.cold) if cold], 4, False),
        }
        if cut:
            also = ", and cut where likes are trained for" if config.contrasts else ""
            reporter.note(
                f"{len(cut)} texts are longer than {config.encoder.max_length} tokens and are read in pieces{also}"
            )
        key = jax.random.key(config.seed)
        self.held_out = {
            name: hide_once(source, vocabulary, config.mlm.share, jax.random.fold_in(key, n), self.put)
            for n, (name, source) in enumerate(judged.items())
            if any(len(document.ids) for document in source.documents)
        }
        self.gradient = jax.jit(mlm_gradient(config, encoder.config, vocabulary))
        self.loss = jax.jit(lambda weights, hidden: mlm_loss(weights.encoder, weights.head, encoder.config, hidden))

    def put(self, passages: Any) -> Any:
        """Put a batch on the devices, which share its texts."""
        return shard_users(self._mesh, passages)


class _Liked:
    """Contrastive training: batches of training and evaluation, and the programs for both."""

    def __init__(
        self, config: PretrainConfig, data: Interactions, read: Seen, encoder: Encoder, mesh: Mesh, reporter: Reporter
    ):
        # With masked words, truncated texts have already been reported.
        told = QUIET if config.hides else reporter
        drawn = config.contrastive.users_per_step * config.contrastive.liked_per_user
        texts = texts_of(config.run, encoder, data.items.texts, reporter=told, most=drawn, split=mesh.size)
        self._mesh = mesh

        def likes(users: np.ndarray, rows: np.ndarray, number: int, **among: np.ndarray) -> LikeSource:
            return LikeSource(
                liked=liked_items(data, users, rows),
                texts=texts,
                users_per_step=config.contrastive.users_per_step,
                per_user=config.contrastive.liked_per_user,
                seed=(config.seed, number),
                **among,
            )

        self.training = likes(read.splits.train, read.rows, 5)
        if not self.training.batches:
            raise MetarecError(
                f"no training user likes two items (rated {data.scale.liked_from:g} or more), so there is nothing to "
                "draw together: lower --data.liked, or use --objective mlm"
            )
        everything = np.ones(len(data), bool)
        judged = {
            "users": likes(read.splits.validation, ~read.cold[data.item], 6),
            "items": likes(read.splits.validation, everything, 7, anchors=~read.cold, targets=read.cold),
        }
        self.held_out = {
            name: [self.put(source[i]) for i in range(source.batches)]
            for name, source in judged.items()
            if name == "users" or read.cold.any()
        }
        spread = functools.partial(jax.lax.with_sharding_constraint, shardings=PartitionSpec(USERS))
        constrain = spread if mesh.size > 1 else _as_it_is
        reading = Reading(encode_with(config.run, encoder.config), texts.plan.per_call, texts.slots(drawn), constrain)
        self.gradient = jax.jit(liked_gradient(config, reading))
        temperature = config.contrastive.temperature
        self.loss = jax.jit(
            lambda weights, batch: contrastive_loss(embed(reading, weights.encoder, batch[0]), batch[1], temperature)
        )

    def put(self, likes: Likes) -> tuple[Chosen, Any]:
        """Put a whole batch on each device; texts are distributed where they are encoded."""
        rows, liked = replicate(self._mesh, likes)
        return Chosen(rows), liked


def _step(
    config: PretrainConfig, source: StepSource, masked: _Masked | None, liked: _Liked | None, mesh: Mesh
) -> Callable[[PretrainState, int], tuple[PretrainState, Losses]]:
    """Make the step as a function on the host.

    Each of its programs is compiled once per shape: hidden words once per padded length, likes and the update once.
    """
    updated = jax.jit(update(config), donate_argnums=0)
    zero = replicate(mesh, Sum(jnp.zeros(()), jnp.zeros(())))

    def step(state: PretrainState, number: int) -> tuple[PretrainState, Losses]:
        batch, gradients, losses = source[number], [], Losses(zero, zero)
        if masked is not None and batch.passages is not None:
            gradient, loss = masked.gradient(state.weights, masked.put(batch.passages), state.key, state.step)
            gradients, losses = [gradient], losses._replace(masked=loss)
        if liked is not None and batch.likes is not None:
            gradient, loss = liked.gradient(state.weights, *liked.put(batch.likes), state.key, state.step)
            gradients, losses = [*gradients, gradient], losses._replace(liked=loss)
        return updated(state, gradients), losses

    return step


def _as_it_is(tree: Any) -> Any:
    return tree


def _nothing(weights: Any, batch: Any) -> Sum:
    raise AssertionError("there is no batch of this kind")
