"""The engine for a loss of one's own: the numbers of loops written out, for any tree, rule, order and placement."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from helpers import assert_close, assert_equal, assert_says

from metarec_jax import meta
from metarec_jax.core.errors import MetarecError
from metarec_jax.core.params import combine, partition
from metarec_jax.meta.model import Trainable

TASKS, ROWS, WIDTH, HIDDEN, STEPS = 2, 5, 12, 3, 2
RATE = meta.Rates(0.1, "layer-step", STEPS)
OUTPUT = ("output/.*",)


def loss(params, rows):
    hidden = jnp.tanh(rows["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
    outputs = hidden @ params["output"]["kernel"] + params["output"]["bias"][None]
    return meta.masked_mean((outputs[:, 0] - rows["y"]) ** 2 / 2, rows["mask"])


def query_loss(params, rows):
    return 2 * loss(params, rows)


PROBLEMS = {
    "maml": {},
    "gram": {"rows": ("x",)},
    "gram, factored": {"rows": ("x",), "form": "factored", "unroll": 2, "query_loss": query_loss},
    "gram, first order": {"rows": ("x",), "order": "first"},
    "first order, another query loss": {"order": "first", "query_loss": query_loss},
    "momentum": {"updater": meta.momentum(RATE), "rows": ("x",)},
    "adam, mixed": {"updater": meta.optax_rule(optax.scale_by_adam(eps_root=1e-8), RATE), "backward": "mixed"},
    "learned, recomputed": {"updater": meta.learned_rule(RATE, hidden=4), "backward": "remat"},
    "meta-sgd": {"updater": meta.meta_sgd(rate=0.1), "rows": ("x",)},
    "anil, gram, mixed": {"adapted": OUTPUT, "rows": ("x",), "backward": "mixed"},
    "gram, mixed": {"rows": ("x",), "backward": "mixed"},
    "one kernel": {"adapted": ("hidden/kernel",), "rows": ("x",)},
}
ALIKE = ("gram", "gram, mixed", "first order, another query loss")
"""Problems that are computed as another of the list is: slow tests."""


def made(seed=0, dtype=np.float64):
    """Parameters, and tasks of 5 to 2 rows as lists of pairs (support, query) and as a batch."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(dtype)

    params = {
        "hidden": {"kernel": normal(WIDTH, HIDDEN) / 3, "bias": normal(HIDDEN)},
        "output": {"kernel": normal(HIDDEN, 1), "bias": normal(1)},
    }

    def rows(count):
        return {"x": normal(count, WIDTH), "y": normal(count), "mask": np.ones(count, dtype)}

    pairs = [(rows(ROWS - i), rows(ROWS - 1 - i)) for i in range(TASKS)]
    batch = meta.Tasks(*(meta.pad_tasks(side, ROWS)[0] for side in zip(*pairs)))
    return jax.tree.map(jnp.asarray, (params, pairs, batch))


def problem_of(**fields):
    return meta.Problem(**{"loss": loss, "updater": meta.gradient_descent(RATE), "steps": STEPS} | fields)


def trainable_of(problem, params):
    rng = np.random.default_rng(1)
    phi = problem.updater.init(partition(params, problem.adapted)[0])
    return Trainable(
        params, jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype), phi)
    )


def walked(problem, trainable, support):
    """The parameters after the inner loop, as one would write it."""
    now, shared = partition(trainable.theta, problem.adapted)
    state = problem.updater.start(trainable.phi, now, lambda: None)
    for index in range(problem.steps):
        gradient = jax.grad(lambda now: problem.loss(combine(now, shared), support))(now)
        if problem.order == "first":
            gradient = jax.lax.stop_gradient(gradient)
        now, state = problem.updater.step(trainable.phi, state, now, gradient, jnp.asarray(index))
    return combine(now, shared)


def written_out(problem, trainable, pairs):
    of_query = problem.query_loss or problem.loss
    return sum(of_query(walked(problem, trainable, support), query) for support, query in pairs) / len(pairs)


def slope(problem, **more):
    return jax.jit(jax.value_and_grad(lambda *at: meta.meta_loss(problem, *at, **more)[0]))


def test_public_names_are_where_the_package_says():
    assert {"Problem", "adapt", "check_updater", "make_step"} <= set(meta.__all__) <= set(dir(meta))
    assert all(callable(getattr(meta, name)) for name in meta.__all__)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "fields", [pytest.param(own, id=n, marks=[pytest.mark.slow] * (n in ALIKE)) for n, own in PROBLEMS.items()]
)
def test_the_meta_loss_and_its_gradients_are_those_of_loops_written_out(fields):
    """Of unequal tasks, by theta and by what the rule learns."""
    params, pairs, batch = made()
    problem = problem_of(**fields)
    trainable = trainable_of(problem, params)
    wanted = jax.jit(jax.value_and_grad(functools.partial(written_out, problem, pairs=pairs)))(trainable)
    assert_close(slope(problem)(trainable, batch), wanted)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["dense", "factored"])
def test_reptile_goes_the_mean_way_of_the_tasks(form):
    params, pairs, batch = made()
    problem = problem_of(order="reptile", rows=("x",), form=form)
    trainable = trainable_of(problem, params)
    gradient, _ = jax.jit(functools.partial(meta.meta_gradient, problem))(trainable, batch)
    ends = jax.jit(lambda: [walked(problem, trainable, support) for support, _ in pairs])()
    wanted = jax.tree.map(lambda start, *ends: start - sum(ends) / len(ends), params, *ends)
    assert_close(gradient.theta, wanted)


@pytest.mark.usefixtures("x64")
def test_micro_batches_on_eight_devices_and_weights_change_nothing():
    params, _, batch = made()
    problem = problem_of(rows=("x",))
    trainable = trainable_of(problem, params)
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf, leaf * 7, leaf]), batch)
    weight = jnp.repeat(jnp.array([1.0, 0.5, 0.0, 2.0]), TASKS)
    wanted = slope(problem)(trainable, batch)
    assert_close(slope(problem)(trainable, twice._replace(weight=weight)), wanted)
    assert_close(slope(problem, at_once=2)(trainable, batch), wanted)
    mesh = jax.make_mesh((8,), ("tasks",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(twice._replace(weight=weight), jax.NamedSharding(mesh, jax.P("tasks")))
        copied = jax.device_put(trainable, jax.NamedSharding(mesh, jax.P()))
        found = jax.device_get(slope(problem, at_once=8)(copied, placed))
    assert_close(found, jax.device_get(wanted))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("fields", [{}, {"rows": ("x",), "form": "factored"}], ids=["dense", "gram"])
def test_adapting_and_predicting_give_the_parameters_and_outputs_of_each_task(fields):
    params, pairs, batch = made()
    problem = problem_of(**fields)
    trainable = trainable_of(problem, params)

    def outputs(params, rows):
        return rows["x"] @ params["hidden"]["kernel"]

    found = jax.jit(lambda: meta.predict(problem, trainable, batch, outputs))()
    for number, (support, query) in enumerate(pairs):
        wanted = jax.jit(walked, static_argnums=0)(problem, trainable, support)
        adapted = jax.jit(lambda support: meta.adapt(problem, trainable, support))(
            jax.tree.map(lambda leaf, n=number: leaf[n], batch.support)
        )
        assert_close(adapted.params, wanted)
        assert adapted.losses[0] == pytest.approx(float(loss(params, support)))
        assert adapted.losses.shape == (STEPS,)
        assert_close(found[number, : len(query["y"])], query["x"] @ np.asarray(wanted["hidden"]["kernel"]))


def test_no_matrix_of_a_task_is_computed_in_gram_space():
    params, _, batch = made(dtype=np.float32)

    def shapes(**fields):
        problem = problem_of(adapted=("hidden/kernel",), **fields)
        return _shapes(jax.make_jaxpr(lambda t: meta.meta_loss(problem, t, batch)[0])(trainable_of(problem, params)))

    own = (TASKS, WIDTH, HIDDEN)
    assert own in shapes()
    assert own in shapes(rows=("x",), loss=lambda p, rows: loss(p, rows) + jnp.sum(p["hidden"]["kernel"] ** 2))
    assert own not in shapes(rows=("x",), form="factored")


def _shapes(jaxpr):
    found = set()
    for equation in jaxpr.jaxpr.eqns if hasattr(jaxpr, "jaxpr") else jaxpr.eqns:
        found |= {variable.aval.shape for variable in equation.outvars}
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                found |= _shapes(inner)
    return found


# Trees


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1, name="output")(jnp.tanh(linen.Dense(HIDDEN, name="hidden")(x)))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.output = nnx.Linear(WIDTH, HIDDEN, rngs=rngs), nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, x):
        return self.output(jnp.tanh(self.hidden(x)))


@jax.tree_util.register_pytree_with_keys_class
class ModuleNet:
    """A module that is a tree itself, with parts that are no arrays, as one of Equinox is."""

    def __init__(self, params, activation):
        self.params, self.activation = params, activation

    def tree_flatten_with_keys(self):
        key = jax.tree_util.GetAttrKey
        return [(key("params"), self.params), (key("nothing"), None)], self.activation

    @classmethod
    def tree_unflatten(cls, activation, children):
        return cls(children[0], activation)

    def __call__(self, x):
        hidden = self.activation(x @ self.params["hidden"]["kernel"] + self.params["hidden"]["bias"][None])
        return hidden @ self.params["output"]["kernel"] + self.params["output"]["bias"][None]


def squared(outputs, rows):
    return meta.masked_mean((outputs[:, 0] - rows["y"]) ** 2 / 2, rows["mask"])


def linen_tree(params):
    return params, lambda p, rows: squared(LinenNet().apply({"params": p}, rows["x"]), rows), lambda tree: tree


def nnx_tree(params):
    graph, state = nnx.split(NnxNet(nnx.Rngs(0)), nnx.Param)
    for layer, name in itertools.product(params, ("kernel", "bias")):
        state[layer][name].set_value(params[layer][name])

    def back(state):
        return {layer: {name: state[layer][name].get_value() for name in params[layer]} for layer in params}

    return state, lambda p, rows: squared(nnx.merge(graph, p)(rows["x"]), rows), back


def module_tree(params):
    return ModuleNet(params, jnp.tanh), lambda p, rows: squared(p(rows["x"]), rows), lambda tree: tree.params


@pytest.mark.parametrize(
    ("tree", "rows"),
    [
        pytest.param(linen_tree, (), id="linen"),
        pytest.param(nnx_tree, (), id="nnx"),
        pytest.param(module_tree, ("x",), id="module, gram"),
        pytest.param(module_tree, (), id="module", marks=pytest.mark.slow),
    ],
)
def test_an_outer_step_of_any_tree_is_that_of_the_dictionary(tree, rows):
    params, _, batch = made(dtype=np.float32)
    optimizer = optax.adam(1e-2)

    def stepped(problem, params):
        state = meta.init_state(problem, params, optimizer)
        return jax.jit(meta.make_step(problem, optimizer))(state, batch)

    own, of_own, back = tree(params)
    problem = problem_of(
        adapted=(".*kernel.*",), loss=of_own, rows=rows, updater=meta.gradient_descent(meta.Rates(0.1))
    )
    (found, losses), (wanted, sums) = stepped(problem, own), stepped(problem._replace(loss=loss, rows=()), params)
    assert_close(back(found.trainable.theta), wanted.trainable.theta)
    assert_close(losses.query, sums.query)
    assert_equal(losses.stopped, np.full(TASKS, STEPS + 1, np.int32))
    assert found.step == 1


# Solutions


@pytest.mark.usefixtures("x64")
def test_ridge_solves_for_the_last_layer_of_each_task():
    """Against numpy: the ridge regression of real rows on the hidden features, around the initial layer."""
    params, pairs, batch = made()
    problem = problem_of(
        updater=meta.ridge(curvature=1.0, precision=2.0), adapted=OUTPUT, steps=1, mask=lambda rows: rows["mask"]
    )
    trainable = meta.init_state(problem, params, optax.sgd(0.1)).trainable
    ends = jax.jit(jax.vmap(lambda support: meta.adapt(problem, trainable, support).params))(batch.support)
    start = np.concatenate([params["output"]["kernel"], params["output"]["bias"][None]])
    for number, (support, _) in enumerate(pairs):
        hidden = np.tanh(support["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
        h = np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1)
        layer = np.linalg.solve(h.T @ h + 2 * np.eye(HIDDEN + 1), h.T @ support["y"][:, None] + 2 * start)
        found = jax.tree.map(lambda leaf, n=number: leaf[n], ends["output"])
        assert_close(np.concatenate([found["kernel"], found["bias"][None]]), layer)


@pytest.mark.usefixtures("x64")
def test_the_implicit_gradient_of_a_quadratic_is_its_closed_form():
    """Of ``(w - c)^2 / 2`` with precision p the solution is ``(c + p w0) / (1 + p)``: its derivative by w0 is
    ``p / (1 + p)``, however many steps lead there."""
    problem = meta.Problem(lambda w, c: jnp.sum((w - c) ** 2) / 2, meta.imaml(rate=0.3, precision=3.0), steps=100)
    trainable = meta.init_state(problem, jnp.array([2.0]), optax.sgd(1.0)).trainable
    tasks = meta.Tasks(support=jnp.array([[1.0], [5.0]]), query=jnp.array([[0.0], [0.0]]))
    solutions = (np.array([1.0, 5.0]) + 3 * 2.0) / 4
    gradient, _ = jax.jit(functools.partial(meta.meta_gradient, problem))(trainable, tasks)
    assert_close(gradient.theta, np.array([(solutions * 3 / 4).mean()]))


# A network that reads the support


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("form", ["dense", "factored"])
def test_the_amortised_updater_begins_as_gradient_descent(form):
    params, _, batch = made()
    problem = problem_of(rows=("x",), form=form)
    reading = problem._replace(updater=meta.amortised(RATE))
    found, wanted = (
        jax.jit(lambda p=p: meta.meta_loss(p, meta.init_state(p, params, optax.sgd(0.1)).trainable, batch)[0])()
        for p in (reading, problem)
    )
    assert_close(found, wanted)


def test_the_amortised_updater_learns_what_one_gradient_step_cannot():
    """Linear regression without noise: one step of descent leaves most of the error, and attention learns to solve."""
    rng = np.random.default_rng(0)

    def linear(params, rows):
        return jnp.mean(((rows["x"] @ params["kernel"])[:, 0] - rows["y"]) ** 2) / 2

    def draw(count):
        weights = rng.normal(size=(count, 3))
        sides = [rng.normal(size=(count, 10, 3)).astype(np.float32) * np.float32([1, 0.3, 0.1]) for _ in range(2)]
        return meta.Tasks(*({"x": x, "y": np.einsum("tni,ti->tn", x, weights).astype(np.float32)} for x in sides))

    def trained(updater):
        problem = meta.Problem(linear, updater, steps=1, rows=("x",))
        optimizer = optax.adam(3e-3)
        state = meta.init_state(problem, {"kernel": jnp.zeros((3, 1))}, optimizer)
        step = jax.jit(meta.make_step(problem, optimizer))
        losses = []
        for _ in range(400):
            state, found = step(state, draw(64))
            losses.append(found.query / found.rows)
        return float(np.mean(losses[-50:]))

    rates = meta.Rates(0.3, "layer")
    assert trained(meta.amortised(rates)) < 0.8 * trained(meta.gradient_descent(rates))


# Mistakes


def penalised(params, rows):
    return loss(params, rows) + jnp.sum(jnp.ones((2, HIDDEN)) @ params["output"]["kernel"])


def _rows(count):
    return {"x": np.ones((count, WIDTH)), "y": np.ones(count)}


MISTAKES = {
    "a pattern": (
        lambda p, b: meta.init_state(problem_of(adapted=("hiden/.*",)), p, optax.sgd(1.0)),
        ["adapted", "'hiden/.*'", "hidden/kernel"],
    ),
    "an integer": (
        lambda p, b: meta.init_state(problem_of(), p | {"seed": jnp.int32(3)}, optax.sgd(1.0)),
        ["'seed'", "int32", "nnx.Param"],
    ),
    "a part": (
        lambda p, b: meta.meta_loss(problem_of(), trainable_of(problem_of(), p), b, at_once=3),
        ["at_once is 3", "2 tasks", "divisor"],
    ),
    "rows": (
        lambda p, b: meta.meta_loss(problem_of(rows=("z",)), trainable_of(problem_of(), p), b),
        ["rows", "'z'", "array of the support", "mask, x, y"],
    ),
    "axes of rows": (
        lambda p, b: meta.meta_loss(
            problem_of(rows=("x",)), trainable_of(problem_of(), p), jax.tree.map(lambda leaf: leaf[:, None], b)
        ),
        ["'x'", "(1, 5, 12)", "[rows, in]"],
    ),
    "a form": (
        lambda p, b: meta.meta_loss(
            problem_of(rows=("x",), form="factored", updater=meta.meta_sgd(rate=0.1)), Trainable(p, {}), b
        ),
        ["'factored'", "'auto'"],
    ),
    "a layer that is read twice": (
        lambda p, b: meta.meta_loss(
            problem_of(
                loss=penalised,
                query_loss=loss,
                updater=meta.ridge(curvature=1.0, precision=1.0),
                adapted=OUTPUT,
                mask=lambda rows: rows["mask"],
            ),
            Trainable(p, meta.ridge(curvature=1.0, precision=1.0).init(partition(p, OUTPUT)[0])),
            b,
        ),
        ["'ridge'", "exactly once", "features @ kernel"],
    ),
    "no task": (lambda p, b: meta.pad_tasks([]), ["pad_tasks", "no task"]),
    "unequal arrays": (lambda p, b: meta.pad_tasks([_rows(3), _rows(3) | {"y": np.ones(2)}]), ["task 1", "[2, 3]"]),
    "a long task": (lambda p, b: meta.pad_tasks([_rows(3), _rows(4)], 3), ["task 1", "4 rows", "length 3"]),
}


@pytest.mark.parametrize(("mistake", "names"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_its_place_and_remedy(mistake, names):
    params, _, batch = made(dtype=np.float32)
    with pytest.raises(MetarecError) as refused:
        mistake(params, batch)
    assert_says(str(refused.value), *names)
