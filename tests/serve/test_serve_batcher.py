"""The batcher: what comes together is computed together, nothing is forgotten, nothing waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from rounds.core.errors import BadImage, WorldFault
from rounds.core.specs import ServeSpec
from rounds.serve.batcher import BATCH_BYTES, Batcher


def squared(numbers: Sequence[int]) -> Sequence[int | Exception]:
    return [number * number for number in numbers]


class Gate:
    """Work that waits until it is let through, and remembers its batches and threads."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.open = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(numbers))
        self.threads.add(threading.current_thread().name)
        assert self.open.wait(10)
        return squared(numbers)


class Threaded:
    """A lane that computes in a thread of its own."""

    def __init__(self, work: Callable[[Sequence[int]], Sequence[int | Exception]]) -> None:
        self.work, self.thread = work, ThreadPoolExecutor(1)

    def start(self, asks: Sequence[int]) -> asyncio.Future[Sequence[int | Exception]]:
        return asyncio.get_running_loop().run_in_executor(self.thread, self.work, asks)


def batching(work: Callable[[Sequence[int]], Sequence[int | Exception]], spec: ServeSpec) -> Batcher[int, int]:
    batcher = Batcher[int, int](spec)
    batcher.open(Threaded(work))
    return batcher


def test_a_lone_request_is_computed_at_once_without_waiting_for_others() -> None:
    async def story() -> float:
        batcher = batching(squared, ServeSpec(max_wait_ms=1000))
        began = time.perf_counter()
        assert [await batcher.submit(number) for number in (1, 2, 3)] == [1, 4, 9]
        waited = time.perf_counter() - began
        await batcher.drain()
        return waited

    assert asyncio.run(story()) < 0.5


def test_requests_that_wait_become_one_batch_of_at_most_max_batch_in_one_thread() -> None:
    gate = Gate()

    async def story() -> list[int]:
        batcher = batching(gate, ServeSpec(max_batch=4))
        futures = [batcher.submit(number) for number in range(10)]
        assert batcher.depth == 9
        gate.open.set()
        answers = await asyncio.gather(*futures)
        await batcher.drain()
        return answers

    assert asyncio.run(story()) == [number * number for number in range(10)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    assert len(gate.threads) == 1


def test_clients_that_ask_again_together_share_a_batch_instead_of_a_batch_of_one_and_the_rest() -> None:
    sizes: list[int] = []

    def work(numbers: Sequence[int]) -> Sequence[int | Exception]:
        sizes.append(len(numbers))
        return squared(numbers)

    async def story() -> None:
        batcher = batching(work, ServeSpec(max_wait_ms=200))

        async def client() -> None:
            for number in range(20):
                await batcher.submit(number)

        await asyncio.gather(*(client() for _ in range(8)))
        await batcher.drain()

    asyncio.run(story())
    assert sizes[0] == 1
    assert sizes.count(8) >= 15


def test_a_full_queue_refuses_the_next_request_and_says_what_to_do() -> None:
    gate = Gate()

    async def story() -> None:
        batcher = batching(gate, ServeSpec(max_queue=2))
        futures = [batcher.submit(number) for number in range(3)]
        with pytest.raises(WorldFault) as refused:
            batcher.submit(3)
        assert refused.value.http_status == 503
        assert str(refused.value) == (
            "the server is overloaded\n  the queue is full; expected at most 2 waiting requests; got 2."
            " Send the request again after the seconds in Retry-After"
        )
        gate.open.set()
        assert await asyncio.gather(*futures) == [0, 1, 4]
        await batcher.drain()

    asyncio.run(story())


def test_an_error_of_one_film_is_that_films_alone() -> None:
    def work(numbers: Sequence[int]) -> Sequence[int | Exception]:
        return [BadImage("broken") if number == 1 else number for number in numbers]

    async def story() -> list[int | BaseException]:
        batcher = batching(work, ServeSpec())
        answers = await asyncio.gather(*(batcher.submit(number) for number in range(3)), return_exceptions=True)
        await batcher.drain()
        return answers

    first, second, third = asyncio.run(story())
    assert (first, str(second), third) == (0, "broken", 2)


def test_an_error_of_the_work_goes_to_every_request_of_the_batch_and_the_next_batch_runs() -> None:
    calls: list[int] = []

    def work(numbers: Sequence[int]) -> Sequence[int | Exception]:
        calls.append(len(numbers))
        if len(calls) == 1:
            raise ZeroDivisionError("a bug")
        return squared(numbers)

    async def story() -> None:
        batcher = batching(work, ServeSpec())
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await batcher.submit(1)
        assert await batcher.submit(3) == 9
        await batcher.drain()

    asyncio.run(story())


def test_a_request_that_has_passed_its_deadline_is_refused_whether_it_waits_or_is_being_computed() -> None:
    gate = Gate()

    async def story() -> None:
        batcher = batching(gate, ServeSpec(deadline_s=0.5))
        futures = [batcher.submit(number) for number in range(3)]
        for future in futures:
            with pytest.raises(
                WorldFault, match=r"no answer in time\n.*the deadline passed; expected an answer within"
            ):
                await future
        gate.open.set()
        assert await batcher.submit(5) == 25
        await batcher.drain()

    asyncio.run(story())
    assert gate.batches == [[0], [5]]


def test_a_request_whose_client_has_gone_is_not_computed() -> None:
    gate = Gate()

    async def story() -> None:
        batcher = batching(gate, ServeSpec())
        futures = [batcher.submit(number) for number in range(3)]
        futures[1].cancel()
        gate.open.set()
        assert (await futures[0], await futures[2]) == (0, 4)
        await batcher.drain()

    asyncio.run(story())
    assert gate.batches == [[0], [2]]


def test_draining_answers_what_waits_and_refuses_what_comes() -> None:
    gate = Gate()

    async def story() -> None:
        batcher = batching(gate, ServeSpec(max_batch=2))
        futures = [batcher.submit(number) for number in range(5)]
        draining = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0)
        with pytest.raises(WorldFault, match=r"the server is stopping\n  no new request is taken\. Send the request"):
            batcher.submit(9)
        gate.open.set()
        await draining
        assert [future.result() for future in futures] == [0, 1, 4, 9, 16]

    asyncio.run(story())


def test_several_lanes_share_what_waits_and_a_lane_that_was_closed_gets_nothing_more() -> None:
    gates = [Gate(), Gate()]

    async def story() -> None:
        batcher = Batcher[int, int](ServeSpec(max_batch=2, max_wait_ms=1))
        early = batcher.submit(0)
        await asyncio.sleep(0.01)
        assert batcher.depth == 1, "without a lane a request waits"
        lanes = [Threaded(gate) for gate in gates]
        for lane in lanes:
            batcher.open(lane)
        futures = [batcher.submit(number) for number in (1, 2, 3, 4)]
        await asyncio.sleep(0.05)
        batcher.close(lanes[0])
        for gate in gates:
            gate.open.set()
        assert await asyncio.gather(early, *futures) == [0, 1, 4, 9, 16]
        assert await batcher.submit(5) == 25
        await batcher.drain()

    asyncio.run(story())
    assert sorted(number for gate in gates for batch in gate.batches for number in batch) == [0, 1, 2, 3, 4, 5]
    assert all(gate.batches for gate in gates)
    assert gates[1].batches[-1] == [5]


def test_large_requests_do_not_share_a_batch() -> None:
    gate = Gate()

    async def story() -> None:
        batcher = batching(gate, ServeSpec())
        futures = [batcher.submit(number, BATCH_BYTES // 2) for number in range(5)]
        gate.open.set()
        assert await asyncio.gather(*futures) == [0, 1, 4, 9, 16]
        await batcher.drain()

    asyncio.run(story())
    assert gate.batches == [[0], [1, 2], [3, 4]]
