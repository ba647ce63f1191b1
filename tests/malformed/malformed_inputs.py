"""Small valid inputs of every command: what the cases damage."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from trained import believing_run

from metarec_jax import encoder
from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.config.run import preset
from metarec_jax.core.scale import STARS
from metarec_jax.evaluation import predictions_table, search
from metarec_jax.metrics.predictions import Predictions
from metarec_jax.serving.store import Store
from metarec_jax.train import run_folder

SPACE = {"train.rate": {"low": 0.001, "high": 0.01, "log": True}, "learner.hidden": [8, 16]}


@functools.cache
def inputs() -> Path:
    """A folder with a run, a pretraining, an encoder, tables, an evaluation and a search."""
    folder = Path(tempfile.mkdtemp(prefix="metarec-malformed-"))
    shutil.copytree(believing_run(), folder / "run")
    Store(folder / "run" / "service").close()
    run_folder.create(folder / "pretraining", PretrainConfig(), command="pretrain")
    encoder.save(encoder.load("random"), folder / "encoder")
    mark = {"catalogue": "0", "seed": 0, "users": ["1"], "items_held_out": ["2"]}
    (folder / "encoder" / "pretraining.json").write_text(json.dumps([mark]))
    _write_tables(folder)
    _write_evaluation(folder / "evaluation" / "seed-0" / "answers.parquet")
    (folder / "space.json").write_text(json.dumps(SPACE))
    (folder / "config.json").write_text('{"train": {"epochs": 1}}')
    base = preset("synthetic")
    updater = dataclasses.replace(base.updater, adapted=("nosuch",))
    search.open_study(dataclasses.replace(base, updater=updater), folder / "search")
    return folder


def _write_tables(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    rows = [
        (f"u{u}", int(i) + 1, int(rng.integers(1, 6)), t)
        for u in range(20)
        for t, i in enumerate(rng.permutation(20)[:15])
    ]
    names = ("user_id", "item_id", "rating", "timestamp")
    text = "".join(",".join(map(str, row)) + "\n" for row in [names, *rows])
    (folder / "ratings.csv").write_text(text)
    (folder / "ratings.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "ratings.jsonl").write_text("".join(json.dumps(dict(zip(names, row))) + "\n" for row in rows))
    pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows))))), folder / "ratings.parquet")
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{i},Lamp {i}\n" for i in range(1, 21)))
    np.save(folder / "vectors.npy", rng.normal(size=(20, 3)))
    with zipfile.ZipFile(folder / "small.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        lines = "".join(f"{u},{i},{r}.0,{t}\n" for u, i, r, t in ((r[0][1:], *r[1:]) for r in rows))
        archive.writestr("ml/ratings.csv", "userId,movieId,rating,timestamp\n" + lines)
        titles = "".join(f"{i},Lamp {i} (1990),Drama\n" for i in range(1, 21))
        archive.writestr("ml/movies.csv", "movieId,title,genres\n" + titles)


def _write_evaluation(path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 60
    task = np.repeat(np.arange(n // 3), 3)
    numbers = {"history": task % 5, "activity": task + 5, "popularity": task + 1}
    questions = predictions_table.Questions(
        task,
        task.astype(np.int32),
        np.tile(np.arange(3, dtype=np.int32), n // 3),
        rng.integers(1, 6, n) * 1.0,
        **numbers,
    )
    said = {"meta-learned": Predictions(*rng.uniform(1, 5, (3, n)))}
    about = {
        "digest": "0", "seed": 0, "data": "1", "source": "small", "kind": "users", "protocol": "new users",
        "scenarios": {"new users": {"definition": "new", "held_out": "users"}}, "scale": STARS._asdict(),
        "settings": {}, "definitions": {},
    }  # fmt: skip
    path.parent.mkdir(parents=True)
    predictions_table.save(
        predictions_table.SeedAnswers({"new users": predictions_table.Answers(questions, said)}, about), path
    )
