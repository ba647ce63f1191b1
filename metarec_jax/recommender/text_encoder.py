"""Encoding of texts that are not in the run folder: users' profiles and descriptions, and texts of new items."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.learner import UserSide
from metarec_jax.config.paths import is_folder
from metarec_jax.core.errors import MetarecError
from metarec_jax.data.describe import describe
from metarec_jax.recommender.errors import InputError, Unavailable
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.train.catalogue import Catalogue

if TYPE_CHECKING:
    from metarec_jax.encoder import Encoder, Side


Check = Callable[[Mapping[str, str]], None]
"""Digests by part -> None, or an error: `metarec_jax.train.run_folder.Run.check_inputs`."""


def warn(sentence: str) -> None:
    """Issue a Python warning, located at the caller of the recommender."""
    warnings.warn(sentence, stacklevel=7)


def load_encoder(config: EncoderConfig, check: Check = lambda digests: None) -> Encoder:
    """Load the pretrained encoder that a run's config names.

    Args:
        config: options of the encoder, of which the path and whether it has dense layers are read.
        check: called with the digest of the encoder; raises an error if the run was trained with another one.

    Returns:
        The encoder.

    Raises:
        MetarecError: the encoder does not exist, cannot be read, or `check` refuses it.
    """
    from metarec_jax import encoder  # imported here because the import is slow and rarely needed

    if is_folder(config.path) and not Path(config.path).exists():
        raise MetarecError(
            f"encoder.path of the run is {config.path!r}, and nothing is there: bring it back, name its new place for "
            "this command with --encoder.path NEW (`metarec recommend`), or have the run keep it: "
            "`metarec train --resume RUN --encoder.path NEW`"
        )
    found = encoder.load(config.path, dense=config.dense)
    check({"encoder": found.digest})
    return found


@contextlib.contextmanager
def _needed() -> Iterator[None]:
    """Raise a `MetarecError` of the block as `Unavailable`."""
    try:
        yield
    except MetarecError as error:
        raise Unavailable(str(error), "the encoder, which reads texts, cannot be used") from error


class TextEncoder:
    """Encodes texts in the same way as the run's items.

    Args:
        config: the encoder, with its pooling and normalisation.
        width: width of the embeddings of the run's items.
        encoder: encoder of a run that trained its encoder; None loads ``config.path`` at the first use.
        report: called once with each distinct note on texts, such as that they were truncated.
    """

    def __init__(self, config: EncoderConfig, width: int, encoder: Encoder | None, report: Callable[[str], None]):
        self.check: Check = lambda digests: None
        """Called with the digest of a loaded encoder; raises an error if the run was trained with another one."""
        if encoder is not None:
            self.encoder = encoder  # replaces the encoder that the cached property would load
        self.config = config
        self._width = width
        self._report = report
        self._reported: set[str] = set()
        self._folder = Path(config.path).expanduser()
        self._has_folder = self._folder.is_absolute() or self._folder.is_dir()

    def folder_is_gone(self) -> bool:
        """Whether the encoder's path is a folder that does not exist; the encoder may still be in memory."""
        return self._has_folder and not self._folder.is_dir()

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder, loaded at the first use.

        Raises:
            Unavailable: the encoder does not exist, or is not the encoder that the run was trained with.
        """
        with _needed():
            encoder, dims = load_encoder(self.config, self.check), self.config.dims
            if encoder.config.vector_size < dims or encoder.config.width(dims) != self._width:
                raise MetarecError(
                    f"encoder.path {self.config.path!r} leads to an encoder of width {encoder.config.vector_size}, "
                    f"but the run's items have embeddings of width {self._width}: "
                    "use the encoder that the run was trained with"
                )
        return encoder

    @functools.cached_property
    def pretrained(self) -> Encoder:
        """The pretrained encoder, with which item factors were fitted, before training; loaded at the first use."""
        if self.config.train == "no":
            return self.encoder
        with _needed():
            return load_encoder(self.config, self.check)

    def encode(
        self, texts: Sequence[str], *, side: Side, pretrained: bool = False
    ) -> Float[np.ndarray, "texts hidden"]:
        """Encode texts.

        Args:
            texts: one or more texts.
            side: "document" for texts of items, "query" for texts of users.
            pretrained: whether to use the pretrained encoder instead of the one that the run trained.

        Returns:
            float32 [texts, hidden], the embeddings.

        Raises:
            Unavailable: the encoder cannot be loaded, or cannot read the texts.
        """
        from metarec_jax.encoder import encode_table
        from metarec_jax.train.encoder_options import prompt_of

        encoder = self.pretrained if pretrained else self.encoder
        with _needed():
            return encode_table(
                encoder,
                texts,
                pooling=self.config.pooling,
                prompt=prompt_of(self.config, side),
                pool_prompt=self.config.pool_prompt == "yes",
                max_length=self.config.max_length,
                dims=self.config.dims,
                report=self._report_once,
                # The precision is that of training; the attention kernel may differ.
                dtype=self.config.dtype,
            )

    def _report_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._report(sentence)


class UserEncoder:
    """Encodes the texts of users.

    Args:
        side: kind of user text: none, a profile, or a description that is made from the history.
        average: float32 [hidden], the embedding of a user without text.
        max_support: greatest number of latest interactions from which a description is made.
        texts: encoder of the texts.
    """

    def __init__(self, side: UserSide, average: Float[np.ndarray, " hidden"], max_support: int, texts: TextEncoder):
        self.side, self.average = side, average
        self._max_support, self._texts = max_support, texts

    def check_profile(self, profile: str) -> None:
        """Check that the run reads profiles if `profile` is not empty.

        Raises:
            InputError: a profile was given, and the run does not read profiles.
        """
        if profile and self.side != "profile":
            raise InputError(
                f"a profile was given, but this run reads none: its learner.user_side is {self.side!r}; "
                "train one with --learner.user-side profile"
            )

    def encode(
        self,
        catalogue: Catalogue,
        histories: Sequence[CheckedHistory],
        profiles: Sequence[str],
        known: Sequence[np.ndarray | None] | None = None,
    ) -> list[Float[np.ndarray, " hidden"]]:
        """Encode each user's text.

        Args:
            catalogue: provides the titles of descriptions.
            histories: histories of the users.
            profiles: profiles of the users, or "".
            known: embeddings of profiles that were encoded before, or None; a description is always encoded again,
                since it depends on the history.

        Returns:
            float32 [hidden] for each user.

        Raises:
            InputError: a profile for a run that does not read profiles.
        """
        for profile in profiles:
            self.check_profile(profile)
        if self.side == "description":
            texts, known = [self._description(catalogue, history) for history in histories], None
        else:
            texts = [profile.strip() for profile in profiles]
        found = [self.average if before is None else before for before in known or [None] * len(texts)]
        unknown = [u for u, text in enumerate(texts) if text and (known is None or known[u] is None)]
        if unknown:
            embeddings = self._texts.encode([texts[u] for u in unknown], side="query")
            for u, embedding in zip(unknown, embeddings):
                found[u] = embedding
        return found

    def _description(self, catalogue: Catalogue, history: CheckedHistory) -> str:
        rows, ratings = history.latest(self._max_support)
        return describe(catalogue.items.titles, rows, ratings, middle=catalogue.scale.middle) if len(rows) else ""
