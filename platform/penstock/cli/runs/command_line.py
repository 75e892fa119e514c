"""The command line of `penstock run`: its own flags, those of `vllm run-batch` without a meaning here, the engine's.

vLLM has some three hundred flags for its engine, and each version has others: what is not ours and not known to be
without a meaning goes to the engine as it is, with the values that follow it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from typer.core import TyperCommand

PASSED_OVER: Final[Mapping[str, bool]] = {
    "--host": True,
    "--port": True,
    "--url": True,
    "--uds": True,
    "--enable-metrics": False,
    "--output-tmp-dir": True,
    "--served-model-name": True,
    "--disable-log-stats": False,
}
"""Flags of vLLM without a meaning here, and whether a value follows. The engine's own socket and counters are ours."""
META: Final = "penstock.run"
"""Where a command finds, in its context's `meta`, how its line was split."""
_ALIKE: Final = 0.8
"""From here on difflib's ratio is a slip of the keyboard: no flag of vLLM 0.32 is so near to one of ours."""
_NUMBER: Final = re.compile(r"-\d")


@dataclass
class SplitLine:
    """A command line, taken apart."""

    ours: list[str] = field(default_factory=list)
    engine: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    """Flags, without their values."""
    served_names: list[str] = field(default_factory=list)
    """What vLLM would have called the model: lines may name it."""


def split(arguments: Sequence[str], valued: Collection[str], flags: Collection[str]) -> SplitLine:
    """Take a command line apart; `valued` are our flags that take a value, `flags` those that take none.

    As vLLM's parser does it takes underscores for hyphens in the name of a long flag.
    """
    found, at = SplitLine(), 0
    while at < len(arguments):
        word = arguments[at]
        name, equals, _ = word.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
        following = 0
        if name in valued or name in flags or not name.startswith("-"):
            following = 1 if name in valued and not equals else 0
            found.ours += [name + word[len(name) :], *arguments[at + 1 : at + 1 + following]]
        elif name in PASSED_OVER:
            following = _values(arguments, at + 1) if PASSED_OVER[name] and not equals else 0
            found.passed_over.append(name)
            if name == "--served-model-name":
                found.served_names += [word[len(name) + 1 :]] if equals else arguments[at + 1 : at + 1 + following]
        else:
            following = _values(arguments, at + 1)
            found.engine += arguments[at : at + 1 + following]
        at += 1 + following
    return found


def _values(arguments: Sequence[str], begin: int) -> int:
    """How many words from here on are no flags."""
    end = begin
    while end < len(arguments) and (not arguments[end].startswith("-") or _NUMBER.match(arguments[end])):
        end += 1
    return end - begin


class RunBatchCommand(TyperCommand):
    """A command that takes what `vllm run-batch` takes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read our own flags; what else stands there is in the context's `meta`."""
        options = [one for one in self.params if one.param_type_name == "option"]
        flags = {name for one in options if getattr(one, "is_flag", False) for name in one.opts} | {"--help"}
        valued = {name for one in options for name in one.opts} - flags
        found = ctx.meta[META] = split(args, valued, flags)
        for word in found.engine:
            name = word.partition("=")[0]
            if name.startswith("--") and (like := difflib.get_close_matches(name, valued | flags, 1, _ALIKE)):
                ctx.fail(f"No such option: {name}; is it {like[0]}?")
        return super().parse_args(ctx, found.ours)
