"""Pretraining of ModernBERT, which has a head for masked words, and of Qwen3, which has none."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from small import host, small_config, small_pretraining

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import path_names
from metarec_jax.encoder.tokenizer import tiny_wordpiece
from metarec_jax.train import run_folder
from metarec_jax.train.pretraining import start as launch
from metarec_jax.train.pretraining.start import fit
from metarec_jax.train.pretraining.step import first_state


def small(kind: str) -> encoder.Encoder:
    tokenizer = tiny_wordpiece()
    own = {"num_key_value_heads": 1, "head_dim": 8} if kind == "qwen3" else {"window": 8, "pad_token_id": 0}
    config = encoder.config_class(kind)(
        vocab_size=tokenizer.size, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24, **own
    )
    return encoder.Encoder(config, encoder.init(0, config), tokenizer, f"a small {kind}")


@pytest.mark.slow
def test_both_objectives_train_every_part_of_modernbert_and_its_head_is_saved(tmp_path):
    own = small("modernbert")
    pretraining = small_pretraining(encoder=own)
    run = run_folder.create(tmp_path / "run", pretraining.config, command=launch.COMMAND)
    fitted = fit(run, pretraining)
    start = host(first_state(pretraining.config, own).weights)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, host(fitted.weights))
    assert [name for name, one in zip(path_names(moved), jax.tree.leaves(moved)) if not one] == []
    trained = dataclasses.replace(own, params=host(fitted.weights.encoder), head=host(fitted.weights.head))
    encoder.save(trained, tmp_path / "saved")
    again = encoder.load(tmp_path / "saved")
    assert again.digest_with_head == trained.digest_with_head


def test_qwen3_learns_from_likes_and_masked_words_are_refused():
    assert small_pretraining(small_config(objective="contrastive"), encoder=small("qwen3")).config
    with pytest.raises(MetarecError, match=r"qwen3, which has no head.*--objective contrastive"):
        small_pretraining(small_config(objective="mlm"), encoder=small("qwen3"))
