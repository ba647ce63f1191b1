"""The cache of a value that depends on the version of its source."""

import threading

from metarec_jax.serving.cache import VersionedCache


def test_the_value_is_computed_once_a_version():
    computed, version = [], [0]
    cache = VersionedCache(lambda: computed.append(1) or len(computed), lambda: version[0])
    assert [cache.get(), cache.get()] == [1, 1]
    version[0] += 1
    assert [cache.get(), cache.get()] == [2, 2]


def test_threads_that_ask_at_the_same_time_compute_it_once():
    computed, started, go = [], threading.Event(), threading.Event()

    def compute():
        started.set()
        go.wait(10)
        computed.append(1)
        return len(computed)

    cache, answers = VersionedCache(compute, lambda: 0), []
    threads = [threading.Thread(target=lambda: answers.append(cache.get())) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert (answers, computed) == ([1] * 4, [1])
