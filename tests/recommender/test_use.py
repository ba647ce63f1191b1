"""From use to a better model: people use a service, its log is judged, exported and trained on, and that is served."""

import contextlib
import json
import threading
import time

import uvicorn
from trained import believing_run, fresh, trained_run

from metarec_jax.cli import main
from metarec_jax.recommender.recommender import Recommender
from metarec_jax.serving import server as launch
from metarec_jax.serving.ab_test import Arm, Exploring
from metarec_jax.serving.app import make_app
from metarec_jax.serving.engine import Engine, Job, List, Whose
from metarec_jax.serving.simulate import Client
from metarec_jax.serving.store import Store


@contextlib.contextmanager
def listening(engine):
    """The address of a server, in a thread."""
    with contextlib.closing(launch.listen("127.0.0.1", 0)) as socket:
        server = uvicorn.Server(uvicorn.Config(make_app(engine), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(60)


def test_feedback_is_measured_trained_on_and_served(recommender, tmp_path, capsys):
    def metarec(*arguments: object) -> str:
        status = main.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    run, store, log = trained_run(), tmp_path / "store", tmp_path / "log.csv"
    engine = Engine([Arm("a", fresh(recommender))], Store(store), exploring=Exploring(0.5, 20), seed=0)
    engine.answer([Job(Whose("u", {}, [("7", 2.0)]), List(10))])  # compiles, for which no client has to wait
    with listening(engine) as address:
        with contextlib.closing(Client(address)) as client:
            client.ask("/items", {"text": "A film about bees.", "id": "bees"})
            history = [{"item": "bees", "rating": 5}, {"item": "7", "rating": 2}]
            client.ask("/users", {"history": history})
        metarec("simulate", run, "--address", address, "--users", 4, "--lists", 3, "--start", 3)

    judged = json.loads(metarec("feedback", run, "--store", store, "--target", believing_run(), "--json"))
    assert judged["arms"]["a"]["impressions"] == 4 * 3 * 10
    assert judged["arms"]["a"]["clicks"] > 0
    other = judged["off-policy"][str(believing_run())]
    assert other["ips"]["low"] <= other["ips"]["value"] <= other["ips"]["high"]
    assert other["weight"]["value"] > 0

    metarec("feedback", run, "--store", store, "--export", log, "--merge", "--json")
    table = ["--data.source", "table", "--data.path", log, "--data.items-path", tmp_path / "log-items.csv"]
    again = ["--config", run / "config.json", "--train.begin", run, "--train.epochs", 1, "--out", tmp_path / "again"]
    metarec("train", *again, *table, "--data.columns.item-text", "text")

    trained = Recommender.load(tmp_path / "again")
    assert trained.items.titles.has_id("bees")
    with contextlib.closing(Store(store)) as kept:
        served = Engine([Arm("a", trained)], kept)  # an item that was added is one like all others now
        assert served.trained_items == len(trained.catalogue.items) == 121
        assert not served.added.adds("bees")
