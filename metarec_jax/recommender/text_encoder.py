"""Embeddings of texts that the run folder has none of: users' profiles and descriptions, and new items."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.config.learner import UserSide
from metarec_jax.config.paths import is_folder
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.kinds import ENCODERS
from metarec_jax.data.describe import describe
from metarec_jax.recommender.errors import InputError
from metarec_jax.recommender.history import CheckedHistory
from metarec_jax.train.catalogue import Catalogue

if TYPE_CHECKING:
    from metarec_jax.encoder import Encoder


Check = Callable[[Mapping[str, str]], None]
"""Digests by part -> None, or an error: `metarec_jax.train.run_folder.Run.check_inputs`."""


def warn(sentence: str) -> None:
    """Issue a Python warning, located at the caller of the recommender."""
    warnings.warn(sentence, stacklevel=7)


def load_encoder(path: str, check: Check = lambda digests: None) -> Encoder:
    """The pretrained encoder that a run's config names.

    Args:
        path: ``encoder.path`` of the config.
        check: refuses another encoder than that of the run, by its digest. It is asked about weights in files alone:
            those of an untrained encoder are drawn, and differ by rounding from processor to processor.

    Raises:
        MetarecError: it does not exist, or `check` refuses it.
    """
    from metarec_jax import encoder  # slow to import, and rarely needed

    if is_folder(path) and not Path(path).exists():
        raise MetarecError(
            f"encoder.path of the run is {path!r}, and nothing is there: bring it back, name its new place for this "
            "command with --encoder.path NEW (`metarec recommend`), or have the run keep it: "
            "`metarec train --resume RUN --encoder.path NEW`"
        )
    found = encoder.load(path)
    if path not in ENCODERS.names():
        check({"encoder": found.digest})
    return found


class TextEncoder:
    """Encodes texts as the run's items were encoded.

    Args:
        config: the encoder, and how its tokens become one vector.
        width: of the embeddings of the run's items.
        encoder: of a run that trained its encoder; None loads ``config.path`` at the first use.
        report: called with each distinct remark on texts, such as that they were truncated, once.
    """

    def __init__(self, config: EncoderConfig, width: int, encoder: Encoder | None, report: Callable[[str], None]):
        self.check: Check = lambda digests: None
        """Refuses another encoder than the run was trained with, by its digest."""
        if encoder is not None:
            self.encoder = encoder  # in place of what the cached property would load
        self.config = config
        self._width = width
        self._report = report
        self._reported: set[str] = set()

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The encoder, loaded at the first use.

        Raises:
            MetarecError: it does not exist, or is not the one that the run was trained with.
        """
        encoder = load_encoder(self.config.path, self.check)
        if encoder.config.hidden_size != self._width:
            raise MetarecError(
                f"encoder.path {self.config.path!r} leads to an encoder of width {encoder.config.hidden_size}, "
                f"but the run's items have embeddings of width {self._width}: "
                "use the encoder that the run was trained with"
            )
        return encoder

    @functools.cached_property
    def pretrained(self) -> Encoder:
        """The encoder before the run trained it, which item factors were learned with; loaded at the first use."""
        return self.encoder if self.config.train == "no" else load_encoder(self.config.path, self.check)

    def encode(self, texts: Sequence[str], *, pretrained: bool = False) -> Float[np.ndarray, "texts hidden"]:
        """Embeddings of texts.

        Args:
            texts: at least one.
            pretrained: whether to use the encoder as it was before the run trained it.
        """
        from metarec_jax.encoder import encode_table

        return encode_table(
            self.pretrained if pretrained else self.encoder,
            texts,
            pooling=self.config.pooling,
            max_length=self.config.max_length,
            report=self._report_once,
            # The model's precision. The attention kernel may differ from the one in training.
            dtype=self.config.dtype,
        )

    def _report_once(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._report(sentence)


class UserEncoder:
    """Embeddings of users' texts.

    Args:
        side: which text a user has: none, a profile, or a description that is made from the history.
        average: float32 [hidden], the embedding of a user without text.
        max_support: latest interactions that a description is made from, at most.
        texts: encodes them.
    """

    def __init__(self, side: UserSide, average: Float[np.ndarray, " hidden"], max_support: int, texts: TextEncoder):
        self.side, self.average = side, average
        self._max_support, self._texts = max_support, texts

    def check_profile(self, profile: str) -> None:
        """Refuse a profile where the run does not read profiles.

        Raises:
            InputError: it does not.
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
        """The embedding of each user's text.

        Args:
            catalogue: has the titles that a description names.
            histories: of the users.
            profiles: of the users, or "".
            known: embeddings of profiles that were encoded before, or None; a description is always encoded again,
                since it depends on the history.

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
            embeddings = self._texts.encode([texts[u] for u in unknown])
            for u, embedding in zip(unknown, embeddings):
                found[u] = embedding
        return found

    def _description(self, catalogue: Catalogue, history: CheckedHistory) -> str:
        rows, ratings = history.latest(self._max_support)
        middle = (catalogue.scale.low + catalogue.scale.high) / 2
        return describe(catalogue.items.titles, rows, ratings, middle=middle) if len(rows) else ""
