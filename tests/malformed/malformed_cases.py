"""The table of malformed inputs: commands, what is wrong, and what the message must name."""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from malformed_damage import CHANGED, DOCUMENTS, REPLACED, VALUES, changing, wrong_values

from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.config.run import Config
from metarec_jax.core.kinds import LEARNERS, UPDATERS


class Case(NamedTuple):
    """A malformed input.

    Attributes:
        arguments: of the command; paths are relative to a copy of the inputs.
        file: the file that is damaged; "" where the arguments are what is wrong.
        damage: damages the file.
        names: what the message must contain; empty where the damage may go unnoticed.
    """

    arguments: tuple[str, ...]
    file: str = ""
    damage: Callable[[Path], None] = lambda path: None
    names: tuple[str, ...] = ()


FAILING = ("--preset", "synthetic", "--updater.adapted", "nosuch")
"""Options of trainings that are refused once everything has been read."""
VECTORS = ("--data.path", "ratings.csv", "--data.items-path", "items.csv", "--data.vectors", "vectors.npy")
READERS: dict[str, tuple[str, ...]] = {
    "run/catalogue.parquet": ("recommend", "run"),
    "run/tables.safetensors": ("export", "run", "--out", "exported"),
    "run/parameters.safetensors": ("recommend", "run"),
    "run/beliefs.safetensors": ("export", "run", "--out", "exported"),
    "run/inputs.json": ("train", "--resume", "run"),
    "run/checkpoints/4/digests.0.json": ("train", "--resume", "run"),
    "run/service/service.sqlite": ("feedback", "run"),
    "evaluation/seed-0/answers.parquet": ("compare", "evaluation", "evaluation"),
    "encoder/config.json": ("train", *FAILING, "--encoder.path", "./encoder"),
    "encoder/model.safetensors": ("train", *FAILING, "--encoder.path", "./encoder"),
    "encoder/pretraining.json": ("train", *FAILING, "--encoder.path", "./encoder"),
    "encoder/tokenizer.json": ("train", *FAILING, "--encoder.path", "./encoder"),
    "ratings.csv": ("inspect", "ratings.csv"),
    "ratings.csv.gz": ("inspect", "ratings.csv.gz"),
    "ratings.jsonl": ("inspect", "ratings.jsonl"),
    "ratings.parquet": ("inspect", "ratings.parquet"),
    "small.zip": ("inspect", "small.zip"),
    "vectors.npy": ("inspect", *VECTORS),
    "items.csv": ("inspect", *VECTORS[:4]),
    "search/search.json": ("tune", *FAILING, "--out", "search"),
    "search/study.log": ("tune", *FAILING, "--out", "search"),
    "space.json": ("tune", *FAILING, "--space", "space.json", "--out", "new"),
}
"""Files, and a command that reads each."""
TOLERATED = {("search/study.log", "empty"), ("search/study.log", "zeros")}
"""A search whose first line was not written in full begins again."""
CONFIGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "run/config.json": (
        ("recommend", "run"),
        ("train", "--resume", "run"),
        ("evaluate", "run"),
        ("export", "run", "--out", "exported"),
        ("interview", "run", "--list"),
        ("simulate", "run", "--address", "http://127.0.0.1:1/"),
        ("serve", "run", "--port", "0"),
        ("feedback", "run", "--export", "rows.csv"),
        ("tune", "--config", "run/config.json", "--out", "new"),
        ("aot", "--config", "run/config.json"),
    ),
    "pretraining/config.json": (("pretrain", "--resume", "pretraining"),),
    "config.json": (("train", "--config", "config.json"), ("pretrain", "--config", "config.json")),
    "space.json": (("tune", "--space", "space.json", "--out", "new"),),
    "encoder/config.json": (READERS["encoder/config.json"],),
}
"""JSON files whose document must be an object, and commands that read each."""
KEYS: dict[str, tuple[str, ...]] = {
    "space.json": ("train.rate", "train.rate/low", "train.rate/high", "train.rate/log", "learner.hidden", "nosuch"),
    "encoder/config.json": (
        "model_type",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "hidden_act",
        "pad_token_id",
        "hidden_dropout_prob",
        "initializer_range",
        "architectures",
    ),
}
"""Keys of documents; each is given values of every type."""
ARGUMENTS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("recommend", "run", "-k", "999999999999999999999"): ("999999999999999999999",),
    ("recommend", "run", "-k", "9" * 5000): (),
    ("recommend", "run", "--rate", "=" * 9000): (),
    ("recommend", "run", "--rate", "id:3=1e999"): ("inf",),
    ("recommend", "run", "--rate", "id:3=" + "9" * 5000): (),
    ("recommend", "run", "--rate", "x" * 90_000 + "=3"): (),
    ("recommend", "run\n" * 2000): (),
    ("recommend", "x" * 3000): (),
    ("recommend", "run", "--users", "ratings.csv", "--out", "x" * 3000 + ".parquet"): (),
    ("recommend", "run", "--users", "x" * 3000, "--out", "lists.parquet"): (),
    ("interview", "run", "--questions", "9" * 30): (),
    ("interview", "run", "--among", "x" * 9000): (),
    ("evaluate", "run", "--seeds", "9" * 30): ("--seeds",),
    ("evaluate", "--seeds", "1000000000"): ("--seeds",),
    ("evaluate", "run", "--metrics", "x" * 9000): (),
    ("evaluate", "--protocol", "x" * 9000): (),
    ("compare", "x" * 3000, "y" * 3000): (),
    ("compare", "evaluation", "evaluation", "--method", "x" * 9000): ("no method",),
    ("tune", "--trials", "9" * 30): ("--trials",),
    ("tune", "--metric", "x" * 9000, "--out", "new"): (),
    ("tune", "--metric", "ndcg@" + "9" * 5000, "--out", "new"): (),
    ("tune", "--metric", "ndcg@999999999999999999999", "--out", "new"): (),
    ("tune", "--space", "x" * 3000): (),
    ("serve", "run", "--port", "9" * 30): ("--port",),
    ("serve", "run", "--together", "9" * 30): ("--together",),
    ("serve", "run", "--pool", "9" * 30): ("--pool",),
    ("serve", "run", "--wait-ms", "1e300"): ("--wait-ms",),
    ("serve", "run", "--wait-ms", "nan"): ("--wait-ms",),
    ("serve", "run", "--share", "nan"): ("--share",),
    ("serve", "run", "--host", "x" * 9000): (),
    ("serve", "run", "--store", "x" * 3000): (),
    ("simulate", "run", "--address", "http://" + "x" * 9000): (),
    ("simulate", "run", "--users", "9" * 30): (),
    ("simulate", "run", "--lists", "9" * 30): (),
    ("simulate", "run", "--seed", "-1"): ("--seed",),
    ("simulate", "run", "--address", "::"): (),
    ("feedback", "run", "--store", "x" * 3000): (),
    ("feedback", "run", "--target", "x" * 3000): (),
    ("feedback", "run", "--export", "x" * 3000 + ".csv"): (),
    ("export", "run", "--out", "x" * 3000): (),
    ("export", "run", "--out", "ratings.csv"): (),
    ("aot", "--target", "x" * 9000): (),
    ("aot", "--target", "v5e:" + "9" * 5000 + "x1"): (),
    ("aot", "--target", "v5e:99999x99999"): (),
    ("aot", "--items", "9" * 30): ("--items",),
    ("aot", "--text-length", "1000000000"): ("--text-length",),
    ("aot", "--users-per-chip", "9" * 30): ("--users-per-chip",),
    ("aot", "--encoder", "x" * 9000): (),
    ("bench", "--rounds", "9" * 30): ("--rounds",),
    ("demo", "--seed", "9" * 30): ("seed",),
    ("demo", "--seed", "-1"): ("seed",),
    ("demo", "--out", "x" * 3000): (),
    ("inspect", "x" * 3000): (),
    ("inspect", "/dev/zero"): ("/dev/zero",),
    ("inspect", "ratings.csv", "--data.columns.user", "x" * 9000): (),
    ("inspect", "ratings.csv", "--data.columns.user", "9" * 3000): (),
    ("inspect", "ratings.csv", "--data.encoding", "x" * 3000): (),
    ("inspect", "ratings.csv", "--data.encoding", "idna"): (),
    ("inspect", "ratings.csv", "--data.encoding", "zlib_codec"): (),
    ("inspect", "ratings.csv", "--data.separator", "x" * 3000): (),
    ("inspect", "ratings.csv", "--data.liked", "9" * 3000): (),
    ("inspect", "ratings.csv", "--data.liked", "1_0"): (),
    ("doctor", "--json", "x" * 9000): (),
    ("pretrain", "--steps", "9" * 30): ("steps",),
    ("pretrain", "--resume", "x" * 3000): (),
    ("train", "--resume", "x" * 3000): (),
    ("train", "--preset", "x" * 9000): (),
    ("train", "--plugin", "x" * 9000): (),
    ("train", "--plugin", "a..b"): (),
    ("train", "--plugin", ""): (),
    ("train", "--config", "/dev/zero"): ("/dev/zero",),
    ("train", "--preset", "synthetic", "--encoder.path", "x" * 3000): (),
    ("train", "--preset", "synthetic", "--encoder.path", "../" * 900): (),
    ("train", "--preset", "synthetic", "--train.begin", "x" * 3000): (),
    ("train", "--preset", "synthetic", "--split.kind", "time", "--split.date", "9" * 3000): (),
    ("train", "--preset", "synthetic", "--split.kind", "time", "--split.date", "1e999"): (),
    ("train", "--preset", "synthetic", "--out", "x" * 3000): (),
    ("train", "--preset", "synthetic", "--learner.hidden", "1e12"): ("hidden",),
    ("train", "--preset", "synthetic", "--learner.hidden", "1000000000000"): ("learner.hidden", "65536"),
    ("train", "--preset", "synthetic", "--train.epochs", "1000000000000000000"): ("train.epochs",),
    ("train", "--preset", "synthetic", "--episodes.query", "1000000000"): ("episodes.query", "100000"),
    ("train", "--preset", "synthetic", "--updater.adapted", "(.*a)*b"): ("updater.adapted", "(.*a)*b"),
    ("train", "--preset", "synthetic", "--updater.adapted", "(a|a)+/(a|a)+$"): ("updater.adapted",),
    ("train", "--preset", "synthetic", "--updater.adapted", ".*.*.*.*.*.*.*x"): ("updater.adapted",),
    ("train", "--preset", "synthetic", "--updater.adapted", "((" * 90): ("updater.adapted",),
    ("train", "--preset", "synthetic", "--updater.adapted", "a{99999999999}"): ("updater.adapted",),
    ("train", "--preset", "synthetic", "--updater.adapted", "x" * 9000): ("updater.adapted",),
}  # fmt: skip
"""Wrong arguments, and what the message must contain."""


@functools.cache
def cases() -> dict[str, Case]:
    """All malformed inputs, by a description of each."""
    found: dict[str, Case] = {}
    for name, case in (*_of_arguments(), *_of_options(), *_of_files(), *_of_documents()):
        assert name not in found, name
        found[name] = case
    return found


@functools.cache
def quick_cases() -> tuple[str, ...]:
    """Names of the cases of `make test`: some of each option, key and resumed training, and all others."""
    seen: dict[str, int] = {}
    chosen = []
    for name, case in cases().items():
        group, every = "", 1
        if case.arguments[:2] == ("train", "--resume"):
            group, every = "resumed", 20
        elif case.file == "config.json" or (case.file in KEYS and ": " in name):
            group, every = case.file, 11
        seen[group] = seen.get(group, 0) + 1
        if seen[group] % every == 0:
            chosen.append(name)
    return tuple(chosen)


def _of_arguments() -> Iterator[tuple[str, Case]]:
    for arguments, names in ARGUMENTS.items():
        yield " ".join(a if len(a) < 60 else f"{a[:10]}({len(a)})" for a in arguments), Case(arguments, names=names)


def _of_options() -> Iterator[tuple[str, Case]]:
    """Every option of trainings and pretrainings, of every kind, with every wrong value of its type."""
    for command, config in (("train", Config), ("pretrain", PretrainConfig)):
        seen = {name for name, _, _ in _fields(Config, ())} if command == "pretrain" else set()
        sections = [(config, (), {}), *(_kinds() if command == "train" else ())]
        for kind, above, others in sections:
            for name, path, hint in _fields(kind, above):
                if name in seen:
                    continue
                seen.add(name)
                for number, value in enumerate(wrong_values(hint)):
                    if name == "data.liked" and isinstance(value, int) and value is not True:
                        continue
                    tree: Any = value
                    for depth, key in enumerate(reversed(path)):
                        tree = {**(others if depth == 0 else {}), key: tree}
                    shown = json.dumps(value)[:20]
                    yield (
                        f"{command} {name} {number} {shown}",
                        Case((command, "--config", "config.json"), "config.json", _write(tree), (path[-1],)),
                    )


def _kinds() -> Iterator[tuple[type, tuple[str, ...], dict[str, str]]]:
    for section, registry in (("learner", LEARNERS), ("updater", UPDATERS)):
        for name in registry.names():
            yield registry.get(name), (section,), {"kind": name}


def _fields(kind: type, above: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        path, hint = (*above, field.name), hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _fields(hint, path)
        else:
            yield ".".join(path), path, hint


def _write(tree: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(tree), encoding="utf-8") and None


def _of_files() -> Iterator[tuple[str, Case]]:
    for file, arguments in READERS.items():
        for name, damage in REPLACED.items():
            names = () if (file, name) in TOLERATED else (Path(file).stem.partition(".")[0],)
            yield f"{file} is {name}", Case(arguments, file, damage, names)
        for name, damage in CHANGED.items():
            yield f"{file}: {name}", Case(arguments, file, damage)
    for name, damage in (REPLACED | CHANGED).items():
        yield f"metrics.jsonl: {name}", Case(("train", "--resume", "run"), "run/metrics.jsonl", damage)
    for name in ("empty", "a folder", "a pipe", "a device", "zeros"):
        yield f"key is {name}", Case(("serve", "run", "--port", "0"), "run/service/key", REPLACED[name], ("key",))


def _of_documents() -> Iterator[tuple[str, Case]]:
    for file, commands in CONFIGS.items():
        for number, arguments in enumerate(commands):
            for name, data in DOCUMENTS.items():
                if number and len(data) > 10_000:
                    continue
                damage = functools.partial(lambda data, path: path.write_bytes(data), data)
                yield (
                    f"{' '.join(arguments)}: {file} is {name}",
                    Case(arguments, file, damage, ("config.json" if "config" in file else file,)),
                )
    for file, keys in KEYS.items():
        for key in keys:
            for value in VALUES:
                yield f"{file}: {key} is {json.dumps(value)}", Case(READERS[file], file, changing(key, value))
