"""Few-shot classification of characters in the fonts that come with matplotlib.

python -m benchmarks.characters --json OUT [--plot PNG] [--iterations 20000]

A class is a character, and an example its picture in one of 16 fonts (DejaVu Sans, Serif and Mono, and STIX, upright,
bold and oblique), 20 x 20 grey values. Characters that look alike in one font are one class. Classes are divided at
random into those of training, validation and test; a task is 5 classes, seen 1 or 5 times each and judged on 5 other
examples of each. All methods share a network of two hidden layers and see the same training classes.

The published behaviour of MAML and ANIL (Raghu et al. 2020, table 1): ANIL, which adapts the last layer alone, is as
good as MAML. "a fine-tuned twin" is the same network trained to tell all training classes apart; a new last layer, or
all of it, is fitted to a task with the rate and steps that are best for validation classes. ProtoNet is Snell et al.
2017.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import curves
from metarec_jax import meta
from metarec_jax.core.progress import QUIET, Reporter

SIDE, INK, SHIFT = 20, 16, 2
"""Size of a picture and of the character in it, and the greatest random shift in training, in pixels."""
FONTS = (
    tuple(f"DejaVu{family}{style}" for family in ("Sans", "SansMono", "Serif") for style in ("", "-Bold"))
    + tuple(
        f"DejaVu{family}-{slant}"
        for family, slant in (
            ("Sans", "Oblique"),
            ("Sans", "BoldOblique"),
            ("SansMono", "Oblique"),
            ("SansMono", "BoldOblique"),
            ("Serif", "Italic"),
            ("Serif", "BoldItalic"),
        )
    )
    + ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
)
WAYS, QUERY, HIDDEN, FEATURES = 5, 5, 128, 64
TASKS, TEST_TASKS = 16, 1000
TWIN = "a fine-tuned twin"


class Pictures(NamedTuple):
    """Pictures float32 [classes, fonts, side * side] of the classes of training, validation and test."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def pictures(seed: int = 0, most: int = 0) -> Pictures:
    """Draw every character that all fonts have, and divide them into 60 %, 15 % and 25 %.

    Args:
        seed: seed of the division.
        most: greatest number of characters; 0 takes all.
    """
    from matplotlib import font_manager, ft2font, get_data_path

    folder = Path(get_data_path()) / "fonts" / "ttf"
    known = {Path(path).stem: path for path in font_manager.findSystemFonts([str(folder)])}
    fonts = [ft2font.FT2Font(known[name]) for name in FONTS]
    shared = functools.reduce(set.__and__, (set(font.get_charmap()) for font in fonts))
    codes = sorted(code for code in shared if chr(code).isalnum())
    drawn: dict[bytes, np.ndarray] = {}
    for code in codes[: most or None]:
        each = [picture for font in fonts if (picture := _picture(font, chr(code))) is not None]
        if len(each) == len(fonts):
            drawn.setdefault(np.round(each[0] * 4).tobytes(), np.stack([p.ravel() for p in each]))
    classes = np.stack(list(drawn.values())).astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(classes))
    return Pictures(*(classes[part] for part in np.split(order, [int(0.6 * len(order)), int(0.75 * len(order))])))


def _picture(font: Any, character: str) -> np.ndarray | None:
    """A character as grey values from 0 to 1 [side, side], scaled to the same height or width; None if it is empty."""
    font.set_size(4 * INK, 72)
    font.set_text(character, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    image = np.asarray(font.get_image(), np.float64) / 255
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    if not len(rows):
        return None
    image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = INK / max(image.shape)
    across = [_shrinking(size, max(round(size * scale), 1)) for size in image.shape]
    small = across[0] @ image @ across[1].T
    picture = np.zeros((SIDE, SIDE))
    top, left = ((SIDE - size) // 2 for size in small.shape)
    picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return picture


def _shrinking(old: int, new: int) -> np.ndarray:
    """Matrix [new, old] that averages intervals of equal length."""
    edges = np.linspace(0, old, new + 1)
    inside = np.minimum(edges[1:, None], np.arange(1, old + 1)) - np.maximum(edges[:-1, None], np.arange(old))
    return np.maximum(inside, 0) * new / old


def features(params: Any, x: Any) -> Any:
    """Features [n, FEATURES] of pictures [n, side * side]."""
    hidden = jax.nn.relu(x @ params["first"]["kernel"] + params["first"]["bias"][None])
    return jax.nn.relu(hidden @ params["second"]["kernel"] + params["second"]["bias"][None])


def logits(params: Any, x: Any) -> Any:
    """Scores [n, classes]."""
    return features(params, x) @ params["output"]["kernel"] + params["output"]["bias"][None]


def loss(params: Any, rows: Any) -> Any:
    """Mean cross-entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(params, rows["x"]), rows["y"]).mean()


def accuracy(params: Any, rows: Any) -> Any:
    """Share of pictures whose class has the highest score."""
    return jnp.mean(jnp.argmax(logits(params, rows["x"]), axis=-1) == rows["y"])


def by_prototype(params: Any, rows: Any) -> Any:
    """Scores of ProtoNet [n, ways]: minus the squared distance from the mean features of each class of the support."""
    seen = jax.nn.one_hot(rows["support"]["y"], WAYS)
    means = seen.T @ features(params, rows["support"]["x"]) / seen.sum(axis=0)[:, None]
    return -jnp.square(features(params, rows["x"])[:, None] - means[None]).sum(axis=-1) / np.sqrt(FEATURES)


def prototype_loss(params: Any, rows: Any) -> Any:
    """Mean cross-entropy of ProtoNet."""
    return optax.softmax_cross_entropy_with_integer_labels(by_prototype(params, rows), rows["y"]).mean()


def prototype_accuracy(params: Any, rows: Any) -> Any:
    """As `accuracy`, for ProtoNet."""
    return jnp.mean(jnp.argmax(by_prototype(params, rows), axis=-1) == rows["y"])


def first_params(key: Any, classes: int = WAYS) -> Any:
    """Initial parameters, with a last layer of zeros."""
    first, second = jax.random.split(key)
    sizes = {"first": (first, (SIDE * SIDE, HIDDEN)), "second": (second, (HIDDEN, FEATURES))}
    params = {
        name: {"kernel": jax.random.normal(k, size) * np.sqrt(2 / size[0]), "bias": jnp.zeros(size[1])}
        for name, (k, size) in sizes.items()
    }
    return params | {"output": {"kernel": jnp.zeros((FEATURES, classes)), "bias": jnp.zeros(classes)}}


def shifted(key: Any, x: Any) -> Any:
    """Pictures [..., side * side], each moved by up to `SHIFT` pixels either way."""
    flat = x.reshape(-1, SIDE, SIDE)
    moves = jax.random.randint(key, (len(flat), 2), -SHIFT, SHIFT + 1)
    return jax.vmap(lambda picture, move: jnp.roll(picture, move, (0, 1)))(flat, moves).reshape(x.shape)


def draw(key: Any, classes: Any, tasks: int, shots: int, *, shift: bool = True) -> meta.Tasks:
    """Tasks of `WAYS` classes with `shots` and `QUERY` examples of each, in different fonts.

    Args:
        key: the draw.
        classes: [classes, fonts, side * side].
        tasks: number of tasks.
        shots: examples of a class in the support.
        shift: whether pictures are moved.
    """

    def one(key: Any) -> meta.Tasks:
        of_class, of_font, of_shift = jax.random.split(key, 3)
        chosen = jax.random.choice(of_class, classes.shape[0], (WAYS,), replace=False)
        fonts = jax.vmap(lambda k: jax.random.permutation(k, classes.shape[1])[: shots + QUERY])(
            jax.random.split(of_font, WAYS)
        )
        x = classes[chosen[:, None], fonts]
        x = shifted(of_shift, x) if shift else x
        y = jnp.broadcast_to(jnp.arange(WAYS)[:, None], x.shape[:2])
        support = {"x": x[:, :shots].reshape(-1, x.shape[-1]), "y": y[:, :shots].reshape(-1)}
        query = {"x": x[:, shots:].reshape(-1, x.shape[-1]), "y": y[:, shots:].reshape(-1)}
        return meta.Tasks(support, query)

    return jax.vmap(one)(jax.random.split(key, tasks))


def with_support(tasks: meta.Tasks) -> meta.Tasks:
    """Tasks whose query carries the support along, for ProtoNet."""
    return tasks._replace(query=tasks.query | {"support": tasks.support})


class Method(NamedTuple):
    """A problem, and how its outputs are judged."""

    problem: meta.Problem
    accuracy: Callable[[Any, Any], Any] = accuracy


def methods() -> dict[str, Method]:
    """The methods that are trained on tasks."""
    rate = meta.Rates(0.1, "layer")
    descent = meta.gradient_descent(rate)
    return {
        "MAML": Method(meta.Problem(loss, descent, steps=5, rows=("x",))),
        "first-order MAML": Method(meta.Problem(loss, descent, steps=5, rows=("x",), order="first")),
        "ANIL": Method(meta.Problem(loss, descent, steps=5, adapted=("output/.*",), rows=("x",))),
        "ProtoNet": Method(
            meta.Problem(lambda params, rows: jnp.zeros(()), descent, steps=0, query_loss=prototype_loss),
            prototype_accuracy,
        ),
    }


def train(method: Method, classes: np.ndarray, iterations: int, shots: int, seed: int = 0) -> Any:
    """Take outer steps of Adam on tasks of training classes; returns what was trained."""
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, iterations))
    of_params, of_tasks = jax.random.split(jax.random.key(seed))
    step = meta.make_step(method.problem, optimizer)

    def one(classes: Any, state: Any, _: None) -> tuple[Any, None]:
        tasks = draw(jax.random.fold_in(state.key, state.step), classes, TASKS, shots)
        return step(state, with_support(tasks) if method.accuracy is prototype_accuracy else tasks)[0], None

    state = meta.init_state(method.problem, first_params(of_params), optimizer, of_tasks)
    run = jax.jit(lambda state, classes: jax.lax.scan(functools.partial(one, classes), state, None, iterations)[0])
    return run(state, jnp.asarray(classes)).trainable


def train_twin(classes: np.ndarray, iterations: int, seed: int = 0) -> Any:
    """Train the network to tell all training classes apart; returns its parameters."""
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, iterations))
    key = jax.random.key(seed)
    params, batch = first_params(key, len(classes)), TASKS * WAYS * QUERY

    def one(classes: Any, carry: Any, index: Any) -> tuple[Any, None]:
        params, state = carry
        of_class, of_font, of_shift = jax.random.split(jax.random.fold_in(key, index), 3)
        y = jax.random.randint(of_class, (batch,), 0, classes.shape[0])
        x = shifted(of_shift, classes[y, jax.random.randint(of_font, (batch,), 0, classes.shape[1])])
        updates, state = optimizer.update(jax.grad(loss)(params, {"x": x, "y": y}), state)
        return (optax.apply_updates(params, updates), state), None

    carry = (params, optimizer.init(params))
    indices = jnp.arange(iterations)
    run = jax.jit(lambda carry, classes: jax.lax.scan(functools.partial(one, classes), carry, indices)[0][0])
    return run(carry, jnp.asarray(classes))


def judge_of(method: Method) -> Callable[[Any, meta.Tasks], np.ndarray]:
    """A compiled function (what was trained, tasks) -> accuracy of each task."""

    @jax.jit
    def judge(trainable: Any, tasks: meta.Tasks) -> Any:
        tasks = with_support(tasks) if method.accuracy is prototype_accuracy else tasks
        return meta.predict(method.problem, trainable, tasks, method.accuracy)

    return lambda *at: np.asarray(judge(*at))


def fine_tuned(params: Any, validation: meta.Tasks, test: meta.Tasks) -> tuple[np.ndarray, dict[str, Any]]:
    """Accuracy of the twin with the choice that is best on validation tasks, and that choice.

    Args:
        params: the trained network.
        validation, test: tasks.
    """
    params = params | {"output": first_params(jax.random.key(0))["output"]}
    best = (-1.0, np.zeros(0), {})
    for adapted, steps in itertools.product(("output/.*", ".*"), (5, 50)):
        rule = meta.gradient_descent(meta.Rates(1.0, "layer"))
        problem = meta.Problem(loss, rule, steps=steps, adapted=(adapted,), rows=("x",))
        judge, trainable = judge_of(Method(problem)), meta.init_state(problem, params, optax.identity()).trainable
        for rate in (0.01, 0.03, 0.1, 0.3, 1.0):
            at = trainable._replace(phi=jax.tree.map(lambda log, rate=rate: log + np.log(rate), trainable.phi))
            found = float(judge(at, validation).mean())
            if found > best[0]:
                best = (found, judge(at, test), {"adapted": adapted, "rate": rate, "steps": steps})
    return best[1], best[2]


def measure(
    drawn: Pictures, iterations: int, test_tasks: int = TEST_TASKS, reporter: Reporter = QUIET
) -> tuple[list[curves.Panel], dict[str, Any]]:
    """Train every method, and judge it on tasks of new classes.

    Args:
        drawn: the pictures.
        iterations: outer steps of each method.
        test_tasks: number of tasks of test classes, and of validation classes.
        reporter: shows progress.

    Returns:
        A panel of accuracies, and facts.
    """
    shots = (1, 5)
    found: dict[str, list[np.ndarray]] = {}
    chosen = {}
    reporter.note(TWIN)
    twin = train_twin(drawn.train, iterations)
    for count in shots:
        validation, test = (
            draw(jax.random.key(seed), jnp.asarray(part), test_tasks, count, shift=False)
            for seed, part in ((7, drawn.validation), (8, drawn.test))
        )
        for name, method in methods().items():
            reporter.note(f"{name}, {count}-shot")
            trainable = train(method, drawn.train, iterations, count)
            found.setdefault(name, []).append(judge_of(method)(trainable, test))
        values, chosen[f"{count}-shot"] = fine_tuned(twin, validation, test)
        found.setdefault(TWIN, []).append(values)
    of_tasks = {name: np.stack(values, axis=1) for name, values in found.items()}
    facts = {
        "better": "higher",
        "iterations": iterations,
        "test_tasks": test_tasks,
        "fonts": len(FONTS),
        "classes": {name: len(part) for name, part in drawn._asdict().items()},
        "twin": chosen,
    }
    return [curves.panel(f"{WAYS}-way", "shots:", shots, of_tasks)], facts


def main(given: Sequence[str] | None = None) -> None:
    """The command line with these arguments; None takes those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--plot", type=Path, help="where to write a picture of some classes in each font")
    parser.add_argument("--iterations", type=int, default=20_000)
    parser.add_argument("--test-tasks", type=int, default=TEST_TASKS)
    parser.add_argument("--classes", type=int, default=0, help="greatest number of characters; 0 takes all")
    arguments = parser.parse_args(given)
    from metarec_jax.core.console import make_reporter

    drawn = pictures(most=arguments.classes)
    panels, facts = measure(drawn, arguments.iterations, arguments.test_tasks, make_reporter())
    if arguments.json:
        curves.write(panels, "accuracy", facts, arguments.json)
    if arguments.plot:
        sheet(drawn).savefig(arguments.plot, dpi=110)
    print(curves.tables({"panels": [found._asdict() for found in panels], "unit": "accuracy", "facts": facts}))


def sheet(drawn: Pictures, classes: int = 12) -> Any:
    """A figure of some test classes, a row each, in every font."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(len(FONTS) * 0.45, classes * 0.45), layout="constrained")
    rows = drawn.test[:classes].reshape(-1, len(FONTS), SIDE, SIDE)
    image = rows.transpose(0, 2, 1, 3).reshape(-1, len(FONTS) * SIDE)
    axes = figure.subplots()
    axes.imshow(image, cmap="gray_r")
    axes.axis("off")
    return figure


if __name__ == "__main__":
    main()
