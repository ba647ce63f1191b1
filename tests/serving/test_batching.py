"""Batching of requests: what goes into one call, what is refused, and who gets an error."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading

import pytest

from metarec_jax.serving.batching import Batcher, QueueFull


def run_in_loop(coroutine):
    """Return the coroutine's result, from an event loop of another thread: Playwright leaves one running in this."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result(timeout=120)


def test_jobs_that_arrive_during_a_call_go_into_the_next():
    started, go = threading.Event(), threading.Event()
    calls: list[list[int]] = []

    def compute(jobs):
        calls.append(list(jobs))
        started.set()
        go.wait(10)
        return [ValueError(job) if job == 3 else 10 * job for job in jobs]

    async def run():
        batcher: Batcher[int] = Batcher(compute, wait=0.0, max_batch=3, max_waiting=4)
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.to_thread(started.wait, 10)
        others = [asyncio.create_task(batcher.submit(n)) for n in range(1, 5)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await batcher.submit(9)
        others[1].cancel()  # the client has disconnected
        go.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        batcher.close()
        return found

    found = run_in_loop(run())
    assert calls == [[0], [1, 2, 3], [4]]
    assert [found[0], found[1], found[4]] == [0, 10, 40]
    assert isinstance(found[2], asyncio.CancelledError)
    assert isinstance(found[3], ValueError)


def test_functions_count_as_waiting():
    go = threading.Event()

    async def run():
        batcher: Batcher[int] = Batcher(list, wait=0.0, max_waiting=3)
        under_way = [asyncio.create_task(batcher.run(lambda n=n: (go.wait(10), n)[1])) for n in range(2)]
        await asyncio.sleep(0)
        under_way.append(asyncio.create_task(batcher.submit(2)))
        await asyncio.sleep(0.05)  # its batch waits for the thread
        under_way.append(asyncio.create_task(batcher.run(lambda: 3)))
        await asyncio.sleep(0)
        assert batcher.waiting == 3
        with pytest.raises(QueueFull):
            await batcher.run(lambda: 4)
        with pytest.raises(QueueFull):
            await batcher.submit(4)
        go.set()
        found = await asyncio.gather(*under_way)
        assert (batcher.waiting, await batcher.run(lambda: 5)) == (0, 5)
        batcher.close()
        return found

    assert run_in_loop(run()) == [0, 1, 2, 3]


def test_a_failed_call_fails_the_jobs_of_its_batch_only():
    def compute(jobs):
        if 1 in jobs:
            raise RuntimeError("broken")
        return list(jobs)

    async def run():
        batcher: Batcher[int] = Batcher(compute, wait=0.0, max_batch=1)
        found = await asyncio.gather(*(batcher.submit(n) for n in range(3)), return_exceptions=True)
        batcher.close()
        return found

    zero, one, two = run_in_loop(run())
    assert (zero, two) == (0, 2)
    assert isinstance(one, RuntimeError)
