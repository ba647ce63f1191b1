import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, finite_differences, tiny
from scipy.stats import spearmanr
from trained import fresh, trained_run

from metarec_jax.cli.main import main
from metarec_jax.config.encoder import EncoderConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.types import Prepared, Tables
from metarec_jax.encoder import embed, pack, pool, random_encoder, run_layers, tokenize, words_of
from metarec_jax.encoder.forward import encode
from metarec_jax.learner.gathered_rows import Fixed
from metarec_jax.learner.inputs import Features
from metarec_jax.meta.user import adapt_user, apply_user, context_of
from metarec_jax.recommender.attribution import Influence, gradient_times_input, in_words, reasons
from metarec_jax.recommender.item_table import ItemTensors
from metarec_jax.recommender.programs import ItemRows, UserTask, embedding_gradients, influences
from metarec_jax.recommender.recommender import Rated

RULES = {
    "gradient": {},
    "first order": {"order": "first"},
    "momentum": {"kind": "momentum"},
    "adam": {"kind": "adam"},
    "ridge": {"kind": "ridge", "adapted": ("output/.*",)},
    "one step of ridge to squared error": {"kind": "ridge", "adapted": ("output/.*",), "head": "rating", "steps": 1},
}


def explained(case, *, items: int = 3):
    """Scores and influences of the first query rows of each user, and the scores as a function of weights."""
    support, query = case.episodes.support, case.episodes.query
    embeddings = case.tables.items[query.item[0, :items]]
    statistic = query.statistic[0, :items]
    every = jnp.zeros((len(case.tables.items), 2)).at[query.item[0, :items]].set(statistic)
    model = case.model._replace(prepare=lambda theta, tables: Prepared(*tables))  # the case's tables are prepared
    found = jax.jit(functools.partial(influences, model))(
        case.trainable,
        ItemTensors(case.tables.items, every, {}, None),
        UserTask(case.tables.users, support),
        query.item[0, :items],
    )

    def scores(weight):
        def one(user, support):
            context = context_of(case.tables, user, support)
            kept = adapt_user(case.model, case.trainable, context).end
            rows = Features(Fixed(embeddings, None, "recommended"), statistic)
            return case.model.head.mean(apply_user(case.model, case.trainable, context, kept, rows))

        return jax.vmap(one)(case.episodes.user, support._replace(mask=weight))

    return found, scores


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "learner", ["mlp", *(pytest.param(k, marks=pytest.mark.slow) for k in ("transformer", "recurrent"))]
)
def test_an_influence_is_the_derivative_by_the_weight_of_a_rating(learner):
    case = tiny(learner=learner)
    (scores, found), by_weight = explained(case)
    mask = case.episodes.support.mask
    assert_close(scores, by_weight(mask))
    for user in range(2):
        real = np.flatnonzero(mask[user])  # a padded row has no derivative to the left
        at = mask[user, real]
        item = 2 - user  # a program is compiled for each pair

        def score(weight, user=user, item=item, real=real):
            return by_weight(mask.at[user, real].set(weight))[user, item]

        wanted = finite_differences(score, at)
        assert_close(found[user, item, real], wanted, tolerance=1e-8, because="finite differences")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "rule",
    [pytest.param(r, marks=[pytest.mark.slow] * (r in ("first order", "momentum", "adam", "ridge"))) for r in RULES],
)
def test_influences_are_derivatives_for_every_rule(rule):
    case = tiny(**RULES[rule])
    (_, found), by_weight = explained(case)
    mask = case.episodes.support.mask
    want = finite_differences(lambda weight: by_weight(weight)[0, 1], mask)[0]
    assert_close(found[0, 1], want, tolerance=1e-8, because="finite differences")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "rule",
    ["gradient", *(pytest.param(r, marks=pytest.mark.slow) for r in ("ridge", "one step of ridge to squared error"))],
)
def test_weight_two_equals_two_ratings(rule):
    case = tiny(users=1, **RULES[rule])
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf[:, :1]], axis=1), case.episodes.support)
    doubled = case._replace(episodes=case.episodes._replace(support=twice))
    _, by_weight = explained(case)
    (want, _), _ = explained(doubled)
    assert_close(by_weight(case.episodes.support.mask.at[0, 0].set(2.0)), want)


@pytest.mark.usefixtures("x64")
def test_padded_rows_have_no_influence():
    (_, found), _ = explained(tiny())
    mask = tiny().episodes.support.mask
    assert (np.asarray(found)[np.broadcast_to(mask[:, None] == 0, found.shape)] == 0).all()
    assert (np.asarray(found)[np.broadcast_to(mask[:, None] > 0, found.shape)] != 0).all()


@pytest.mark.slow
def test_influences_rank_ratings_as_leaving_them_out_does(recommender):
    rng = np.random.default_rng(0)
    found = []
    for length in (6, 11, 16):
        history = [Rated(int(i) + 1, float(rng.integers(1, 6))) for i in rng.permutation(120)[:length]]
        state, asked = recommender.adapt(history), [3, 50, 77]
        full = recommender.score(state, asked)
        less = recommender.adapt_many([history[:i] + history[i + 1 :] for i in range(length)])
        # The text that describes the user is that of the whole history here, as it is for influences.
        less = [dataclasses.replace(one, embedding=state.embedding) for one in less]
        left_out = np.stack([full - recommender.score(one, asked) for one in less], axis=1)
        for explanation, truth in zip(recommender.explain(state, asked), left_out):
            by_id = {influence.id: influence.influence for influence in explanation.influences}
            found.append(spearmanr([by_id[str(rated.item)] for rated in history], truth).statistic)
    assert np.mean(found) > 0.9


def test_an_explanation_names_the_item_and_every_rating(recommender):
    history = {7: 5, 8: 1, 9: 4}
    state = recommender.adapt(history)
    one, other = recommender.explain(state, [3, "id:50"])
    titles = recommender.catalogue.items.titles
    assert (one.id, one.title, other.id) == ("3", titles[2], "50")
    np.testing.assert_allclose([one.score, other.score], recommender.score(state, [3, 50]), rtol=1e-5)
    assert {int(i.id): i.rating for i in one.influences} == history
    values = [i.influence for i in one.influences]
    assert values == sorted(values, reverse=True)
    assert set(one.because) <= set(one.influences)
    assert one.words is None


def test_items_explained_together_are_explained_as_alone(recommender):
    state = recommender.adapt({7: 5, 8: 1, 9: 4})
    asked = list(range(20, 55))
    together = recommender.explain(state, asked)
    for item in (20, 36, 54):
        alone = recommender.explain(state, [item])[0]
        values = [[i.influence for i in e.influences] for e in (alone, together[item - 20])]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)
        assert alone.sentence == together[item - 20].sentence
    assert recommender.explain(state, []) == []


def test_an_empty_history_explains_nothing(recommender):
    explanation = recommender.explain(recommender.adapt(), [3])[0]
    assert explanation.influences == explanation.because == ()
    assert explanation.sentence == ""


def test_an_item_that_was_rated_is_no_reason_for_itself(recommender):
    state = recommender.adapt({7: 5, 8: 5, 9: 5})
    for item in (7, 8, 9):
        explanation = recommender.explain(state, [item])[0]
        assert str(item) in {i.id for i in explanation.influences}
        assert str(item) not in {i.id for i in explanation.because}


def test_an_unknown_item_is_refused(recommender):
    with pytest.raises(MetarecError, match="999"):
        recommender.explain(recommender.adapt(), [999])


def test_explaining_compiles_two_programs(compilations, recommender):
    other = fresh(recommender)
    state = other.adapt({7: 5, 8: 1})
    for number in (1, 3, 10, 11, 40, 1):
        other.explain(state, list(range(1, number + 1)))
    assert compilations.count("jit(influences)") == 2


def ratings(*values: float) -> list[Influence]:
    return [Influence(str(n), f"Item {n}", 4.0, value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ((), 0),
        ((0.03, 0.02), 0),  # too little to be told from chance
        ((-0.2, -0.3), 0),
        ((0.2, -0.3), 1),
        ((0.2, 0.05), 1),  # the second is far behind
        ((0.2, 0.15, 0.14), 2),
    ],
)
def test_reasons_have_a_large_enough_influence(values, named):
    given = ratings(*values)
    assert reasons(given, 0.04) == tuple(given[:named])
    assert bool(in_words(reasons(given, 0.04))) == (named > 0)


# Words


def test_words_are_those_of_the_text_with_all_their_tokens():
    tokenizer = random_encoder().tokenizer
    text = "Alien (1979): a crew, hunted"
    words = words_of(tokenizer, text, 128)
    assert [word for word, _ in words.words] == ["Alien", "(", "1979", ")", ":", "a", "crew", ",", "hunted"]
    np.testing.assert_array_equal(words.ids, tokenize(tokenizer, [text], 128).ids[0])
    assert sorted(place for _, own in words.words for place in own) == list(range(1, len(words.ids) - 1))


def test_words_of_a_truncated_text_are_those_that_are_encoded():
    tokenizer = random_encoder().tokenizer
    words = words_of(tokenizer, "one two three four five", 6)
    assert len(words.ids) == 6
    assert max(place for _, own in words.words for place in own) == 4
    assert words.words[0][0] == "one"
    assert words_of(tokenizer, "", 6).words == ()


def test_gradient_times_input_sums_to_the_directional_derivative():
    encoder, config = random_encoder(), EncoderConfig(path="random", pooling="mean")
    ids = tokenize(encoder.tokenizer, ["a space ship", "tea"], 128).ids
    tokens = jax.tree.map(jnp.asarray, pack(list(ids), 12))
    slope = jax.random.normal(jax.random.key(0), (2, 64))
    got = gradient_times_input(encoder.params, tokens, slope, encoder.config, config)
    assert got.shape == (2, 12)
    assert (np.asarray(got)[tokens.mask == 0] == 0).all()

    # All inputs of a text times 1 + h: to first order the embedding moves by h times the sum over tokens.
    def moved(h):
        states = embed(encoder.params, encoder.config, tokens) * (1 + h)
        last = run_layers(encoder.params, encoder.config, states, tokens.mask, first=0, last=2)
        return jnp.sum(pool(last, tokens.mask, normalise=True) * slope, axis=-1)

    assert_close(moved(0.0), jnp.sum(encode(encoder.params, encoder.config, tokens, normalise=True) * slope, axis=-1))
    want = (moved(0.01) - moved(-0.01)) / 0.02
    np.testing.assert_allclose(got.sum(axis=1), want, rtol=0.02, atol=1e-4)


def test_an_explanation_has_the_words_of_the_text(recommender):
    state = recommender.adapt({7: 5, 8: 1, 9: 4})
    explanation = recommender.explain(state, [3], words=True)[0]
    text = recommender.catalogue.items.texts[2]
    assert [word.text for word in explanation.words] == [
        word for word, _ in words_of(recommender.texts.encoder.tokenizer, text, 128).words
    ]
    assert any(word.influence != 0 for word in explanation.words)


@pytest.mark.usefixtures("x64")
def test_an_embedding_gradient_is_by_the_embedding_before_it_is_prepared():
    case = tiny(users=1)
    prepared = case.model.prepare(case.trainable.theta, Tables(*case.tables))
    (user,), support = case.episodes.user, jax.tree.map(lambda leaf: leaf[0], case.episodes.support)
    context = context_of(prepared, user, support)
    adapted = adapt_user(case.model, case.trainable, context).end
    embedding, statistic = jnp.array([[0.3, -0.2, 0.5]]), case.episodes.query.statistic[0, :1]

    def score(embedding):
        tables = case.model.prepare(case.trainable.theta, Tables(embedding, jnp.zeros((0, 3))))
        rows = Features(Fixed(tables.items, None, "recommended"), statistic)
        return case.model.head.mean(apply_user(case.model, case.trainable, context, adapted, rows))[0]

    task = UserTask(case.tables.users, *jax.tree.map(lambda leaf: leaf[None], (support, adapted)))
    items = ItemTensors(prepared.items, jnp.zeros((len(prepared.items), 2)), {}, None)
    got = embedding_gradients(case.model, case.trainable, items, task, ItemRows(embedding, statistic))
    assert_close(got[0], finite_differences(score, embedding), tolerance=1e-8, because="finite differences")


# The command


@pytest.mark.slow
def test_recommend_prints_explanations(capsys):
    command = ["recommend", str(trained_run()), "--rate", "id:7=5", "--rate", "id:8=5", "-k", "4", "--why"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["recommended"]
    titles = {rated["title"] for rated in json.loads(_json_of(command, capsys))["rated"]}
    for item in found:
        assert {reason["title"] for reason in item["because"]} <= titles
        assert bool(item["why"]) == bool(item["because"])
    assert main(command) == 0
    assert "why" in capsys.readouterr().out


def _json_of(command, capsys) -> str:
    assert main([*command, "--json"]) == 0
    return capsys.readouterr().out
