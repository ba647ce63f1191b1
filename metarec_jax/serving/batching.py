"""Batching of concurrent requests: one call computes a batch, and requests that arrive meanwhile form the next one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")


class QueueFull(Exception):
    """The number of waiting requests has reached its limit."""


class Batcher(Generic[Job]):
    """Collect jobs and pass them in batches to a function that runs in a dedicated thread.

    Args:
        compute: maps the jobs of a batch to the result of each, or the exception that its `submit` raises.
        wait: seconds that the first job of a batch waits for others. 0 with `max_batch` 1 computes one job at a time.
        max_batch: largest number of jobs in a call of `compute`.
        max_waiting: largest number of jobs and functions that wait or run; further ones raise `QueueFull`.
        on_batch: called after every batch with the number of jobs and the seconds that it took.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Job]], Sequence[Any]],
        *,
        wait: float = 0.003,
        max_batch: int = 64,
        max_waiting: int = 1024,
        on_batch: Callable[[int, float], None] = lambda jobs, seconds: None,
    ):
        self._compute, self._on_batch = compute, on_batch
        self._wait, self._max_batch, self._max_waiting = wait, max_batch, max_waiting
        self._queue: list[tuple[Job, asyncio.Future]] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="metarec-serving")
        self._running = 0
        self._task: asyncio.Task | None = None
        self._batch_is_full = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Number of jobs that wait, and of functions that wait or run."""
        return len(self._queue) + self._running

    async def submit(self, job: Job) -> Any:
        """Return the result of a job.

        Raises:
            QueueFull: `max_waiting` jobs and functions already wait or run.
        """
        self._check_queue()
        future = asyncio.get_running_loop().create_future()
        self._queue.append((job, future))
        if len(self._queue) >= self._max_batch:
            self._batch_is_full.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._compute_batches())
        return await future

    async def run(self, function: Callable[[], Any], *, always: bool = False) -> Any:
        """Run a function in the thread of `compute`, because it changes data that `compute` reads.

        Args:
            function: function without parameters.
            always: whether to ignore `max_waiting`, for the last part of an operation that has begun.

        Returns:
            The result of `function`.

        Raises:
            QueueFull: `max_waiting` jobs and functions already wait or run.
        """
        if not always:
            self._check_queue()
        self._running += 1
        try:
            return await self._in_thread(function)
        finally:
            self._running -= 1

    def close(self) -> None:
        """Stop the thread after the current call."""
        self._thread.shutdown()

    def _check_queue(self) -> None:
        if self.waiting >= self._max_waiting:
            raise QueueFull("too many requests are waiting: try again in a second")

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _compute_batches(self) -> None:
        """Compute batches until the queue is empty. Only the first batch waits, as later jobs arrive during calls."""
        if self._wait and len(self._queue) < self._max_batch:
            self._batch_is_full.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._batch_is_full.wait(), self._wait)
        while self._queue:
            batch, self._queue = self._queue[: self._max_batch], self._queue[self._max_batch :]
            started = time.perf_counter()
            try:
                results = await self._in_thread(lambda batch=batch: self._compute([job for job, _ in batch]))
            except Exception as error:  # all jobs fail, because the job that caused the error is not known
                results = [error] * len(batch)
            self._on_batch(len(batch), time.perf_counter() - started)
            for (_, future), result in zip(batch, results):
                if future.done():  # the client has disconnected
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
