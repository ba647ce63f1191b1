"""Configs of earlier layouts: options that are gone are left out, and refused where they had another value."""

import pytest

from metarec_jax.config.legacy import LAYOUT, upgrade
from metarec_jax.core.errors import MetarecError

BEFORE = {"query_prompt": "", "document_prompt": "", "pool_prompt": "yes", "dense": False, "dims": 0}


@pytest.mark.parametrize(
    ("layout", "before", "after"),
    [
        (1, {"updater": {"kind": "gradient", "momentum": 0.5, "precision": 2.0}}, {"updater": {"kind": "gradient"}}),
        (1, {"updater": {"kind": "momentum", "momentum": 0.9}}, {"updater": {"kind": "momentum"}}),
        (1, {"learner": {"kind": "mlp", "heads": 2, "width": 8}}, {"learner": {"kind": "mlp"}}),
        (
            1,
            {"learner": {"kind": "transformer", "heads": 4, "width": 8}},
            {"learner": {"kind": "transformer", "width": 8}},
        ),
        (1, {"updater": {"form": "dense", "remat": True}, "train": {"save_every": 7}}, {"updater": {}, "train": {}}),
        (1, {"encoder": {"lora_layers": [r"layer_\d+/(query|value)"], "keep": "products"}}, {"encoder": BEFORE}),
        (
            LAYOUT,
            {"encoder": {"path": "e5", "max_length": 128}},
            {"encoder": {"path": "e5", "max_length": 128} | BEFORE},
        ),
        (LAYOUT, {"encoder": BEFORE | {"query_prompt": "q: "}}, {"encoder": BEFORE | {"query_prompt": "q: "}}),
        (2, {"factors": {"rank": 8, "noise": 0.8}, "seed": 3}, {"factors": {"rank": 8, "mixing": 1.0}, "seed": 3}),
        (LAYOUT, {"factors": {"rank": 8}}, {"factors": {"rank": 8, "mixing": 1.0}}),
        (LAYOUT, {"factors": {"mixing": 0.75}}, {"factors": {"mixing": 0.75}}),
        # An option of a plugin's kind that has the name of one that is gone.
        (2, {"updater": {"kind": "mine", "momentum": 0.5}}, {"updater": {"kind": "mine", "momentum": 0.5}}),
        (2, {"steps": 6, "warmup": 0.1, "clip": 1.0}, {"steps": 6}),  # of a pretraining
        (
            LAYOUT,
            {"episodes": {"query": 10, "max_support": 20, "buckets": [16, 32, 90]}},
            {"episodes": {"query": 10, "buckets": [16, 20]}},
        ),
        (1, {"episodes": {"max_support": 90}}, {"episodes": {"buckets": [16, 32, 90]}}),
        (LAYOUT, {"episodes": {"max_support": "a"}}, {"episodes": {"max_support": "a"}}),  # refused as no option
        (LAYOUT, {"learner": {"kind": "mine", "heads": 2}}, {"learner": {"kind": "mine", "heads": 2}}),
    ],
)
def test_options_that_are_gone_are_left_out_and_later_ones_have_no_effect(layout, before, after):
    assert upgrade(before, layout, "config.json") == after


@pytest.mark.parametrize("layout", [1, 2])
@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"factors": {"noise": 0.7}}, ["factors.noise is 0.7", "always 0.8"]),
        ({"updater": {"kind": "momentum", "momentum": 0.5}}, ["updater.momentum is 0.5", "always 0.9"]),
        ({"learner": {"kind": "transformer", "heads": 2}}, ["learner.heads is 2", "always 4"]),
        ({"encoder": {"normalise": False}}, ["encoder.normalise is False", "always True"]),
        ({"train": {"clip": 5.0}}, ["train.clip is 5.0", "always 1.0"]),
        ({"warmup": 0.5}, ["warmup is 0.5", "always 0.1"]),
    ],
)
def test_another_value_of_an_option_that_is_a_constant_now_is_refused(layout, document, names):
    with pytest.raises(MetarecError) as caught:
        upgrade(document, layout, "runs/a/config.json")
    assert all(name in str(caught.value) for name in ["runs/a/config.json", "train it anew", *names])
