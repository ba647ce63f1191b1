"""An event store and a user's state that an earlier version wrote: the store is read, the state is refused.

tests/golden/stores/layout-1 was written by `metarec serve` of commit 376c7ae on the run tests/golden/runs/layout-1:
a user with two ratings, one added item, a list, a click and two ratings after it. said.json holds answers of that
service: the user, a portable state, and the list of that user in the end. Its encoder was an untrained one, which that
version drew otherwise.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fastapi.testclient import TestClient

from metarec_jax import encoder
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving.ab_test import Arm
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine
from metarec_jax.serving.store import Store
from metarec_jax.train.start import fit, resume

GOLDEN = Path(__file__).parents[1] / "golden"
SAID = json.loads((GOLDEN / "stores" / "layout-1" / "said.json").read_text())


def earlier_encoder() -> encoder.Encoder:
    """The untrained encoder of that version: its matrices are parts of one draw of normal numbers."""
    like = encoder.random_encoder()
    kernels = [leaf for leaf in jax.tree.leaves(like.params) if leaf.ndim > 1]
    draw = like.config.init_scale * jax.random.normal(jax.random.key(0), (sum(leaf.size for leaf in kernels),))
    parts = iter(jnp.split(draw, np.cumsum([leaf.size for leaf in kernels])[:-1]))
    params = jax.tree.map(lambda leaf: next(parts).reshape(leaf.shape) if leaf.ndim > 1 else leaf, like.params)
    return dataclasses.replace(like, params=params)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The present service on the earlier run and a copy of its store."""
    folder = tmp_path_factory.mktemp("earlier")
    run = Path(shutil.copytree(GOLDEN / "runs" / "layout-1", folder / "run"))
    encoder.save(earlier_encoder(), folder / "encoder")
    # It has ended: this writes its best parameters to a file.
    fit(*resume(run, paths={"encoder.path": str(folder / "encoder")}))
    store = shutil.copytree(GOLDEN / "stores" / "layout-1", folder / "store")
    engine = Engine([Arm("a", Recommender.load(run))], Store(store), seed=0)
    with TestClient(make_app(engine, hosts=frozenset({"127.0.0.1"})), base_url="http://127.0.0.1") as client:
        yield client


def test_items_users_and_events_of_an_earlier_store_are_read(client):
    item = client.get("/items/boats").json()
    assert (item["title"], item["ratings"], item["new"]) == ("Boats", 1, True)
    rated = client.post("/adapt", json={"user": SAID["user"]}).json()["rated"]
    assert rated == len(SAID["rated"])
    answer = client.post("/recommend", json={"user": SAID["user"], "k": 5}).json()
    assert [item["id"] for item in answer["items"]] == [item for item, _ in SAID["recommended"]]
    assert [item["score"] for item in answer["items"]] == pytest.approx([s for _, s in SAID["recommended"]], abs=1e-4)
    figures = client.get("/figures").json()["arms"]["a"]
    assert (figures["clicks"], figures["ratings"], figures["rating"]["value"]) == (1, 1, 4.0)


def test_a_state_of_an_earlier_version_is_refused_with_the_remedy(client):
    answer = client.post("/recommend", json={"state": SAID["state"], "k": 5})
    assert answer.status_code == 422
    assert "adapt to the history again" in answer.text
