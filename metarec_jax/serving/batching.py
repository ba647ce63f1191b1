"""Requests that come at the same time, answered together: what arrives while one call runs goes into the next one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")


class Crowded(Exception):
    """There is too much waiting already."""


class Gatherer(Generic[Job]):
    """Hands jobs to a function of many at once, which runs in one thread of its own.

    Args:
        answer: jobs -> for each a result, or the exception that its sender is to get.
        wait: seconds that the first job of a call waits for others to come. 0 with `most` 1 is one job at a time.
        most: jobs of one call.
        longest: jobs and functions that may wait or run; more are refused.
        measure: told of every call: how many jobs, and how many seconds it took.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Job]], Sequence[Any]],
        *,
        wait: float = 0.003,
        most: int = 64,
        longest: int = 1024,
        measure: Callable[[int, float], None] = lambda jobs, seconds: None,
    ):
        self._answer, self._wait, self._most, self._longest, self._measure = answer, wait, most, longest, measure
        self._waiting: list[tuple[Job, asyncio.Future]] = []
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="metarec-serving")
        self._running = 0
        self._turn: asyncio.Task | None = None
        self._enough = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Jobs that wait, and functions that wait or run."""
        return len(self._waiting) + self._running

    async def ask(self, job: Job) -> Any:
        """What comes of a job.

        Raises:
            Crowded: too many jobs wait already.
        """
        self._refuse_more()
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if len(self._waiting) >= self._most:
            self._enough.set()
        if self._turn is None or self._turn.done():
            self._turn = asyncio.create_task(self._go_on())
        return await future

    async def run(self, function: Callable[[], Any]) -> Any:
        """What a function gives that must not run beside a call (it changes what calls read).

        Raises:
            Crowded: too much waits already.
        """
        self._refuse_more()
        self._running += 1
        try:
            return await self._in_thread(function)
        finally:
            self._running -= 1

    def close(self) -> None:
        """Ends the thread, once what is under way is done."""
        self._thread.shutdown()

    def _refuse_more(self) -> None:
        if self.waiting >= self._longest:
            raise Crowded

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _go_on(self) -> None:
        """Calls until nothing waits. While a call runs, others gather by themselves: only the first has to wait."""
        if self._wait and len(self._waiting) < self._most:
            self._enough.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), self._wait)
        while self._waiting:
            turn, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            started = time.perf_counter()
            try:
                answers = await self._in_thread(lambda turn=turn: self._answer([job for job, _ in turn]))
            except Exception as error:  # of all, since whose it is cannot be told
                answers = [error] * len(turn)
            self._measure(len(turn), time.perf_counter() - started)
            for (_, future), answer in zip(turn, answers):
                if future.done():  # whoever asked has gone away
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
