"""The head for masked words: the numbers of transformers' models that have one, in and out again."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bert_reference import assert_parity, random_params, random_tokens
from helpers import assert_equal
from test_architectures import ALL as EVERY
from test_architectures import LENGTH, copied, each_of, edit, of, refused, theirs

from metarec_jax import encoder
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder import convert
from metarec_jax.encoder.architectures import ARCHITECTURES
from metarec_jax.encoder.mlm_head import identity_head, logits

ALL = [kind for kind in EVERY if ARCHITECTURES[kind].masked]


def scores(loaded: encoder.Encoder, tokens: encoder.Tokens) -> np.ndarray:
    """Of every word at every token, by our head."""
    config = loaded.config

    @jax.jit
    def of(params, head, tokens):
        x = encoder.embed(params, config, tokens)
        x = encoder.run_layers(params, config, x, tokens.mask, first=0, last=config.num_layers)
        return logits(head, params["embeddings"]["word"]["embedding"], config, x)

    assert loaded.head is not None
    return np.asarray(of(loaded.params, loaded.head, tokens))


def their_scores(model, tokens: encoder.Tokens) -> np.ndarray:
    import torch

    ids, mask, types = (torch.from_numpy(np.asarray(field)).long() for field in tokens[:3])
    segments = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 0) else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, attention_mask=mask, **segments).logits.numpy()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What transformers saves of each architecture with a head for masked words, with random numbers everywhere."""
    import torch
    import transformers

    made = {}
    for kind in ALL:
        bare, tokenizer = theirs(kind)
        model = getattr(transformers, ARCHITECTURES[kind].masked.model)(bare.config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for value in model.parameters():
                spread = 0.2 if value.ndim == 1 else min(0.5, value.shape[-1] ** -0.5)
                value.copy_(spread * torch.randn(value.shape, generator=generator) + 0.5 * (value.ndim == 1))
        made[kind] = tmp_path_factory.mktemp("masked") / kind
        model.save_pretrained(made[kind])
        tokenizer.save_pretrained(made[kind])
    return made


@each_of(ALL)
def test_what_transformers_saves_loads_with_its_scores_and_goes_back(kind, folders, tmp_path):
    import transformers

    ours = encoder.load(folders[kind])
    original = transformers.AutoModelForMaskedLM.from_pretrained(folders[kind])
    tokens = random_tokens(np.random.default_rng(3), ours.config, [LENGTH, 9, 1], LENGTH)
    tokens.ids[tokens.mask == 0] = ours.config.pad_token_id
    real = tokens.mask > 0
    wanted = their_scores(original, tokens)
    assert np.abs(wanted).max() > 1
    assert_parity(scores(ours, tokens)[real], wanted[real])

    encoder.save(ours, tmp_path / "ours")
    again = encoder.load(tmp_path / "ours")
    assert again.config == ours.config
    assert_equal((again.params, again.head), (ours.params, ours.head))
    saved = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    assert type(saved) is type(original)
    if kind == "modernbert":
        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
        assert (saved.config.cls_token_id, saved.config.sep_token_id) == (
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
        )
    np.testing.assert_array_equal(their_scores(saved, tokens), wanted)


@each_of(ALL)
def test_a_new_head_is_saved_for_both_models_of_transformers(kind, folders, tmp_path, capfd):
    """An encoder that came without one: every tensor is there, none is made up by transformers."""
    import transformers

    loaded = encoder.load(folders[kind])
    config = dataclasses.replace(loaded.config, has_pooler=False)
    params = random_params(config, 0)
    new = dataclasses.replace(loaded, config=config, params=params, head=identity_head(config))
    encoder.save(new, tmp_path / "new")
    tokens = random_tokens(np.random.default_rng(3), config, [LENGTH, 9], LENGTH)
    tokens.ids[tokens.mask == 0] = config.pad_token_id
    real = tokens.mask > 0
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_parity(their_scores(model, tokens)[real], scores(new, tokens)[real])
    bare, info = transformers.AutoModel.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not [name for name in info["missing_keys"] if "pooler" not in name]
    state = bare.state_dict()
    for name, value in convert.tensors_from_params(params, config).items():
        np.testing.assert_array_equal(state[name].numpy(), value)
    assert_equal(encoder.load(tmp_path / "new").head, new.head)


def test_encoders_without_a_head_have_none(folders, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = copied(folders["bert"], tmp_path / "other")
    tensors = load_file(folder / "model.safetensors")
    bare = {name: value for name, value in tensors.items() if not name.startswith("cls.")}
    save_file(bare, folder / "model.safetensors")
    assert encoder.load(folder).head is None
    # A decoder that is not the word embeddings is another head, which would say something else.
    decoder = {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"] + 1}
    save_file(tensors | decoder, folder / "model.safetensors")
    assert encoder.load(folder).head is None
    decoder["cls.predictions.decoder.weight"] -= 1
    near = {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"]}
    save_file(tensors | near, folder / "model.safetensors")
    assert encoder.load(folder).head is not None


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (np.zeros(3, np.float32), ["cls.predictions.bias", "[3]"]),
        (None, ["cls.predictions.bias", "NaN"]),
    ],
    ids=["shape", "NaN"],
)
def test_a_damaged_head_is_named(folders, tmp_path, tensor, words):
    from safetensors.numpy import load_file, save_file

    folder = copied(folders["bert"], tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    if tensor is None:
        tensor = np.full_like(tensors["cls.predictions.bias"], np.nan)
    save_file(tensors | {"cls.predictions.bias": tensor}, folder / "model.safetensors")
    refused(folder, *words)


@each_of(ALL)
def test_a_head_that_passes_on_has_every_tensor_of_its_kind(kind):
    config = of(kind)
    wanted = {(weight.path, weight.shape) for weight in convert.head_weights(config)}
    leaves = jax.tree_util.tree_flatten_with_path(identity_head(config))[0]
    assert {(tuple(key.key for key in path), leaf.shape) for path, leaf in leaves} == wanted


def test_a_config_without_its_weights_is_not_silently_given_a_head(folders, tmp_path):
    folder = copied(folders["roberta"], tmp_path / "half")
    edit(folder / "config.json", num_hidden_layers=1)
    refused(folder, "2 layers", "says 1")


def test_an_architecture_without_such_a_head_is_refused():
    with pytest.raises(MetarecError, match=r"qwen3.*--objective contrastive"):
        identity_head(of("qwen3"))


@pytest.mark.parametrize(
    "changes",
    [{"decoder_bias": False}, {"dense_bias": True, "norm_bias": True}, {"dense_activation": "relu"}],
    ids=str,
)
def test_the_biases_and_the_activation_of_a_head(changes, tmp_path):
    import torch
    import transformers

    config = of("modernbert", **changes)
    params, rng = random_params(config, 5), np.random.default_rng(5)
    head = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), identity_head(config))
    tree, tensors = convert.with_head(params, head, config)
    model = transformers.ModernBertForMaskedLM(transformers.AutoConfig.for_model(**tree))
    tensors = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    info = model.load_state_dict(tensors, strict=False)
    assert (info.missing_keys, info.unexpected_keys) == (["decoder.weight"], [])
    tokens = random_tokens(rng, config, [LENGTH, 9], LENGTH)
    real = tokens.mask > 0
    states = encoder.hidden_states(params, config, tokens)[-1]
    ours = logits(head, jnp.asarray(params["embeddings"]["word"]["embedding"]), config, states)
    assert_parity(np.asarray(ours)[real], their_scores(model, tokens)[real])
