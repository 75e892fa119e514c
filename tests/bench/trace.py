"""The trace: how long prompts and answers of a production chat service are, and when they come.

Without a file, sizes are drawn from the quantiles of the conversation part of the Azure LLM inference trace 2023
(19,366 requests of one hour, CC-BY 4.0; Patel et al., "Splitwise: Efficient generative LLM inference using phase
splitting", ISCA 2024), prompt and answer independently (their rank correlation there is 0.07), and arrivals are
Poisson (there the gaps' coefficient of variation is 1.09). With the file itself (`--trace`), both come from its rows.

    TIMESTAMP,ContextTokens,GeneratedTokens
    2023-11-16 18:15:46.6805900,374,44
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from penstock_worker.tuning.workload import ANSWER_TOKENS, PROMPT_TOKENS, QUANTILES

SYNTHETIC: Final = "synthetic, from the quantiles of the Azure LLM inference trace 2023 (conversation)"
# 693 tokens in and 127 out on average, of which the tiny model serves some twenty a second on two cores. With a quarter
# of the trace's lengths vLLM's HTTP front end was the limit, and its engine never full.
SCALE: Final = 0.6
# The tiny model's context is 4,096 tokens.
_MOST_PROMPT_TOKENS: Final = 2_048
_SYNTHETIC_ROWS: Final = 20_000


@dataclass(frozen=True)
class Size:
    """One request: tokens of its prompt, and of the answer that is asked for."""

    prompt: int
    answer: int

    def __str__(self) -> str:
        return f"{self.prompt}x{self.answer}"

    @classmethod
    def parse(cls, text: str) -> Size:
        """`PROMPTxANSWER`; raises ValueError if it is something else."""
        prompt, _, answer = text.partition("x")
        return cls(int(prompt), int(answer))


@dataclass(frozen=True)
class Trace:
    """Rows of a trace, and at which second each came (none if it is synthetic)."""

    source: str
    prompts: np.ndarray
    answers: np.ndarray
    seconds: np.ndarray | None = None

    def sizes(self, seed: int, scale: float = SCALE) -> Iterator[Size]:
        """Rows without end, drawn with this seed and scaled; the same seed draws the same rows."""
        rng = np.random.default_rng(seed)
        for _ in count():
            row = int(rng.integers(len(self.prompts)))
            prompt = min(_MOST_PROMPT_TOKENS, max(4, round(float(self.prompts[row]) * scale)))
            yield Size(prompt, max(2, round(float(self.answers[row]) * scale)))

    def arrivals(self, seed: int, rate: float, seconds: float) -> list[float]:
        """Seconds from a window's start at which requests come, at this mean rate.

        With a real trace a stretch of it, from a place that the seed chooses, stretched or squeezed as a whole.
        """
        rng = np.random.default_rng(seed)
        if self.seconds is None:
            gaps = rng.exponential(1 / rate, size=int(rate * seconds * 3) + 20)
            times = np.cumsum(gaps)
        else:
            own_rate = len(self.seconds) / float(self.seconds[-1] - self.seconds[0])
            long = seconds * rate / own_rate
            start = self.seconds[0] + rng.random() * max(0.0, float(self.seconds[-1] - self.seconds[0]) - long)
            times = (self.seconds[self.seconds >= start] - start) * own_rate / rate
        return [float(time) for time in times if time < seconds]


def synthetic(seed: int = 2023) -> Trace:
    """Rows drawn from the quantiles above."""
    rng = np.random.default_rng(seed)
    prompts = np.interp(rng.random(_SYNTHETIC_ROWS), QUANTILES, PROMPT_TOKENS)
    answers = np.interp(rng.random(_SYNTHETIC_ROWS), QUANTILES, ANSWER_TOKENS)
    return Trace(SYNTHETIC, prompts, answers)


def alike(size: Size) -> Trace:
    """One size for all, as the lines of a template have; to be scaled by 1."""
    return Trace(f"every line {size.prompt}x{size.answer}", np.array([size.prompt]), np.array([size.answer]))


def read(path: Path) -> Trace:
    """A trace from a CSV file with the three columns above."""
    with path.open(newline="") as file:
        rows = [
            (datetime.fromisoformat(row["TIMESTAMP"][:26]), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
            for row in csv.DictReader(file)
        ]
    rows.sort()
    times, prompts, answers = zip(*rows, strict=True)
    seconds = np.array([(time - times[0]).total_seconds() for time in times])
    return Trace(path.name, np.array(prompts, float), np.array(answers, float), seconds)


def of(path: Path | None) -> Trace:
    """The trace of this file, or the synthetic one."""
    return synthetic() if path is None else read(path)
