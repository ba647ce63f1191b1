"""A run of items with pictures: they are read, kept with the run, counted, and served as small copies."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from helpers import assert_says, random_interactions
from made_pictures import picture, save_tower
from training import small_config, write_table

from metarec_jax import Recommender
from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.vision import read_picture
from metarec_jax.recommender.cold_items import ColdItem
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.rows import NewItem
from metarec_jax.serving.store import Store
from metarec_jax.train.start import meta_train

HOSTS = frozenset({"127.0.0.1"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of 20 items, all but the first of which have a picture."""
    made = tmp_path_factory.mktemp("shop")
    data = random_interactions(np.random.default_rng(0), users=44, items=20, least=8, most=12)
    write_table(data, made / "ratings.csv")
    columns = {"item_id": list(data.items.ids), "title": [f"Lamp {n}" for n in range(20)]}
    pictures = pa.array([None, *(picture(n, kind="JPEG") for n in range(1, 20))], pa.binary())
    pq.write_table(pa.table(columns | {"photo": pictures}), made / "items.parquet")
    base = small_config(epochs=1)
    source = DataConfig(
        source="table",
        path=str(made / "ratings.csv"),
        items_path=str(made / "items.parquet"),
        columns=Columns(image="photo"),
        image_encoder=str(save_tower("clip", made / "clip")),
        cache=str(made / "cache"),
    )
    meta_train(dataclasses.replace(base, data=source), made / "run")
    return made


@pytest.fixture(scope="module")
def recommender(folder):
    return Recommender.load(folder / "run")


def client_of(recommender, folder, token=None) -> TestClient:
    app = make_app(Engine([Arm("a", recommender)], Store(folder), seed=0), hosts=HOSTS, token=token)
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.mark.slow
def test_pictures_are_a_source_of_item_factors(recommender):
    items = recommender.catalogue.items
    assert items.vectors.shape == (20, 20)
    unknown = np.isnan(items.vectors).all(axis=1)
    assert [items.ids[row] for row in np.flatnonzero(unknown)] == [
        items.ids[r] for r in range(20) if not items.picture(r)
    ]
    assert unknown.sum() == 1
    assert "vector" in recommender.catalogue.beliefs.sources.shift
    row = int(np.flatnonzero(~unknown)[0])
    new = recommender.cold_items
    plain, seen = (new.read([ColdItem("a lamp")], vectors)[1] for vectors in (None, items.vectors[row][None]))
    assert np.abs(plain - seen).max() > 1e-4, "the factors of a new item depend on its picture"


def test_the_service_has_a_small_copy_of_each_picture(recommender, tmp_path):
    with client_of(recommender, tmp_path) as client:
        cards = client.post("/recommend", json={"history": [], "k": 20}).json()["items"]
        assert len(cards) == 20
        for card in cards:
            answer = client.get("/picture", params={"item": card["id"]})
            assert client.get(f"/items/{card['id']}").json()["picture"] == card["picture"]
            if card["picture"]:
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "image/jpeg"
                assert read_picture(answer.content).size == (50, 40)
            else:
                assert answer.status_code == 404
                assert_says(answer.text, "has no picture")
        assert sum(card["picture"] for card in cards) == 19
        assert client.get("/picture", params={"item": "nothing"}).status_code == 404


def test_an_added_item_has_none_and_a_token_guards_pictures(folder, tmp_path):
    own = Recommender.load(folder / "run")
    with client_of(own, tmp_path, token="secret") as client:
        allowed = {"authorization": "Bearer secret"}
        body = NewItem("new", "A new lamp", "A lamp of glass.", {})._asdict()
        assert client.post("/items", json=body, headers=allowed).json()["picture"] is False
        assert client.get("/picture", params={"item": "new"}, headers=allowed).status_code == 404
        assert client.get("/picture", params={"item": own.catalogue.items.ids[1]}).status_code == 401


def test_a_damaged_file_of_pictures_is_named(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder / "run", tmp_path / "run")
    file = copy / "pictures.arrow"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(MetarecError, match=r"pictures\.arrow"):
        Recommender.load(copy)
    file.unlink()
    assert Recommender.load(copy).catalogue.items.pictures is None
