"""The engine context: what whoever asks the engine works with: client, gate, supervisor, cache and pace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from penstock.formats.output import Record
from penstock.settings import Settings
from penstock_worker.admission.backpressure import Backpressure
from penstock_worker.admission.gate import Gate
from penstock_worker.answer_cache import AnswerCache
from penstock_worker.budget.pace import Pace
from penstock_worker.engine.adapters.adapter_residency import AdapterResidency
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.engine.token_counter import TokenCounter
from penstock_worker.runtime.loop_thread import LoopThread


@dataclass(frozen=True)
class EngineContext:
    """One worker's engine and what stands around it; slices and waiting calls share it."""

    client: EngineClient
    gate: Gate
    supervisor: Supervisor
    loop: LoopThread
    settings: Settings
    answer_cache: AnswerCache | None = None
    pace: Pace = field(default_factory=Pace)
    adapters: AdapterResidency | None = None
    """Which adapters are in it; None: it is asked for none."""

    @cached_property
    def backpressure(self) -> Backpressure:
        """What the engine said of its own limits."""
        return Backpressure(self.gate)

    @property
    def token_counter(self) -> TokenCounter | None:
        """Counts as the engine does, which takes lists of inputs; None: it takes none, or nobody here can count."""
        launch = self.supervisor.launch
        return launch.token_counter if launch.profile.takes_lists else None

    def gpu_microseconds(self, records: Sequence[Record]) -> int:
        """The GPU time that answers took which are about to be recorded; reused ones took none."""
        tokens = sum(record.usage.total_tokens for record in records if not record.reused)
        return self.pace.gpu_microseconds(tokens, self.gate.lines_busy_seconds)
