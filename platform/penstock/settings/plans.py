"""Plans: how batches are cut into slices."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import MIB, Concern


class PlanSettings(Concern):
    """Sizes of slices, and what is assumed of lines."""

    slice_seconds: float = Field(
        20.0, gt=0, description="Engine work of one slice, by what the model's workers measured."
    )
    slice_tokens: int = Field(
        60_000, ge=1, description="Estimated tokens of one slice where no worker has measured itself."
    )
    slice_lines: int = Field(4_096, ge=1, description="Most lines of one slice.")
    slice_bytes: int = Field(16 * MIB, ge=1, description="Most bytes of one slice: a worker holds several in memory.")
    expected_output_tokens: int = Field(256, ge=1, description="Tokens of an answer that nothing is known about.")
    bytes_per_token: float = Field(
        4.0, gt=0, description="Bytes of body per input token until a model's own is measured."
    )
