"""The budget loop moves a real gate's budget by what calls, gate and engine say, and shows why on the metrics page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from worker.engines import echo_engine, echo_launch, wait_ready

from penstock.domain.calls.ingress import Slo
from penstock.domain.engines.profiles import ECHO, VLLM
from penstock.domain.work.rank import Rank
from penstock.settings import Settings
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.admission.refill import Refill
from penstock_worker.budget.budget_loop import BudgetLoop, engine_load
from penstock_worker.budget.latency import MOST_SAMPLES, Latencies
from penstock_worker.budget.line_budget import QUIET_SECONDS, EngineLoad
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.process.supervisor import Supervisor

CALL, LINE = Ticket(Rank.REALTIME, "a"), Ticket(Rank.STANDARD, "a")


class House:
    """A gate full of lines, its budget loop, and a clock."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.gate = Gate(32, 36)
        self.latencies = Latencies()
        self.now = 1_000.0
        self.budget_loop = BudgetLoop(
            self.gate, client, self.latencies, Settings(), clock=lambda: self.now, load=ECHO.load
        )
        self.held = 0

    async def step(self, *ttft: float) -> None:
        """A second: lines fill or leave the gate, calls have their first bytes, the budget loop looks."""
        while self.held < self.gate.budget:
            await self.gate.admit(LINE)
            self.held += 1
        while self.held > self.gate.budget:
            self.gate.release(LINE)
            self.held -= 1
        for seconds in ttft:
            await self.gate.admit(CALL)
            self.latencies.ttft(seconds)
            self.gate.release(CALL)
        self.now += 1.0
        await self.budget_loop.step()

    @property
    def page(self) -> str:
        registry = CollectorRegistry()
        registry.register(self.budget_loop)
        return generate_latest(registry).decode()


@pytest.fixture(scope="module")
def engine(short_dir: Path) -> Iterator[Supervisor]:
    with echo_engine(short_dir / "budget") as supervisor:
        yield supervisor


def run(socket: Path, test: Callable[[House], Awaitable[None]]) -> None:
    async def inside() -> None:
        async with EngineClient(socket=socket) as client:
            await test(House(client))

    asyncio.run(asyncio.wait_for(inside(), 60))


def test_slow_calls_shrink_the_budget_and_the_page_says_why(engine: Supervisor) -> None:
    async def test(house: House) -> None:
        house.budget_loop.slo = Slo(ttft_p95_ms=100)
        for _ in range(12):
            await house.step(0.2, 0.2)
        assert house.gate.budget <= 16
        assert house.budget_loop.reason == "slo_ttft"
        for row in (
            'penstock_batch_budget_reason{reason="slo_ttft"} 1.0',
            'penstock_batch_budget_reason{reason="all"} 0.0',
            'penstock_slo_p95_seconds{of="ttft"} 0.1',
            "penstock_batch_lines_most 32.0",
            "penstock_engine_kv_usage 0.0",
        ):
            assert row in house.page

    run(engine.launch.socket, test)


def test_the_first_call_after_a_quiet_while_brings_the_learned_budget_back_before_it_is_admitted(
    engine: Supervisor,
) -> None:
    async def test(house: House) -> None:
        house.budget_loop.slo = Slo(ttft_p95_ms=100)
        for _ in range(12):
            await house.step(0.2, 0.2)
        learned = house.gate.budget
        for _ in range(int(QUIET_SECONDS) + 2):
            await house.step()
        assert (house.gate.budget, house.budget_loop.reason) == (32, "no_calls")
        await house.gate.admit(CALL)
        assert (house.gate.budget, house.budget_loop.reason) == (learned, "slo_ttft")

    run(engine.launch.socket, test)


def test_without_a_promise_or_without_calls_all_lines_may_enter(engine: Supervisor) -> None:
    async def test(house: House) -> None:
        for _ in range(12):
            await house.step(9.0, 9.0)
        assert (house.gate.budget, house.budget_loop.reason) == (32, "all")

    run(engine.launch.socket, test)


def test_a_full_cache_in_the_engine_is_seen(short_dir: Path) -> None:
    folder = short_dir / "budget-full"
    launch = echo_launch(folder, "--kv-usage=0.95")

    async def test(house: House) -> None:
        for _ in range(5):
            await house.step()
        assert house.gate.budget == 32, "nobody calls: the engine lets in what fits"
        for _ in range(5):
            await house.step(0.1)
        assert house.gate.budget < 32
        assert house.budget_loop.reason == "kv"

    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        wait_ready(supervisor, 30)
        run(launch.socket, test)


def test_people_see_who_has_which_slot_and_what_calls_met_lately(short_dir: Path) -> None:
    folder = short_dir / "budget-report"
    launch = echo_launch(folder, "--kv-usage=0.95", "--preemptions=3")

    async def test(house: House) -> None:
        await house.step()
        house.gate.release(LINE)
        await house.gate.admit(Ticket(Rank.FLEX, "b"))
        await house.gate.admit(CALL)
        house.latencies.ttft(0.3)
        report = house.budget_loop.report()
        assert (report.slots, report.most_lines, report.calls) == (36, 32, 1)
        assert report.lines == {"priority": 0, "standard": 31, "flex": 1}
        assert report.waiting == {"calls": 0, "priority": 0, "standard": 0, "flex": 0}
        assert (report.kv_usage, report.preemptions, report.prefix_hit_rate) == (0.95, 3, None)
        assert sum(report.ttft) == 1
        found = report.parted(32, "no_calls")
        assert (found.total, found.used, found.free, found.closed, found.reserved) == (36, 33, 0, 0, 3)

    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        wait_ready(supervisor, 30)
        run(launch.socket, test)


def test_an_engine_that_does_not_answer_stops_nobody(short_dir: Path) -> None:
    async def test(house: House) -> None:
        await house.step(0.1)
        assert (house.gate.budget, house.budget_loop.reason) == (32, "all")
        assert "penstock_engine_running" not in house.page

    run(short_dir / "nobody.sock", test)


def test_it_goes_on_until_it_is_cancelled(engine: Supervisor) -> None:
    async def inside() -> None:
        async with EngineClient(socket=engine.launch.socket) as client:
            budget_loop = BudgetLoop(Gate(32), client, Latencies(), Settings(budget_seconds=0.01))
            running = asyncio.create_task(budget_loop.run())
            budget_loop.slo = Slo(ttft_p95_ms=100)
            while budget_loop.reason != "no_calls":
                await client.metrics()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(asyncio.wait_for(inside(), 30))


def test_vllms_page_is_read_and_data_parallel_engines_add_up() -> None:
    page = """# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:num_preemptions_total{engine="0",model_name="m"} 1e+01
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:generation_tokens_total{engine="0",model_name="m"} 20.0
vllm:generation_tokens_total{engine="1",model_name="m"} 3.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e+09
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 90.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 60.0
"""
    assert VLLM.load is not None
    assert engine_load(page, VLLM.load) == EngineLoad(7, 1, 0.5, 10, 123, 23, 90, 60)
    assert engine_load("# nothing of vLLM's\n", VLLM.load) is None


def test_no_number_of_samples_grows_what_is_kept() -> None:
    latencies = Latencies()
    for n in range(50_000):
        latencies.gap(float(n))
    latencies.ttft(1.0)
    ttft, gaps = latencies.take()
    assert (ttft, len(gaps)) == ((1.0,), MOST_SAMPLES)
    assert 20_000 < sum(gaps) / len(gaps) < 30_000, "a fair sample, not the first or the last"
    assert latencies.take() == ((), ())


def test_the_refill_hears_of_the_engines_prompts_and_the_page_says_what_may_enter(engine: Supervisor) -> None:
    async def test(house: House) -> None:
        gate = house.gate = Gate(32, 36, refill=Refill())
        loop = house.budget_loop = BudgetLoop(gate, house.client, house.latencies, Settings(), load=ECHO.load)
        line = Ticket(Rank.STANDARD, "a", tokens=50)
        await gate.admit(line)
        await loop.step()
        body = {"model": engine.launch.model, "messages": [{"role": "user", "content": "many words " * 50}]}
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(engine.launch.socket))) as client:
            (await client.post("http://engine/v1/chat/completions", json=body)).raise_for_status()
        await loop.step()
        gate.release(line)
        assert "penstock_refill_tokens_per_second 0.0" in house.page, "nobody calls"
        await gate.admit(CALL)
        [told] = [row for row in house.page.splitlines() if row.startswith("penstock_refill_tokens_per_second ")]
        assert 0 < float(told.split()[1]) < 1e6

    run(engine.launch.socket, test)
