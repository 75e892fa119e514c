"""OUT, and a command's own files beside it: which names those have, and that nothing else is lost under them.

OUT                  is there only once it is whole
OUT.part             grows, and is the lock (sidecar.py)
OUT.part.NAME        what is in work for a while
OUT.penstock.json    the sidecar
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from penstock.stack.problem import Problem


def beside(out: Path) -> Path:
    """Where the sidecar of this OUT is."""
    return out.with_name(out.name + ".penstock.json")


def part_of(out: Path, name: str | None = None) -> Path:
    """What grows while the command runs; with a name, what is in work."""
    return out.with_name(f"{out.name}.part" + (f".{name}" if name else ""))


def target(out: Path) -> Path:
    """Where OUT is: a link is written through. Raises Problem if no plain file can be there."""
    real = Path(os.path.realpath(out)) if out.is_symlink() else out
    if real.is_dir():
        raise Problem(f"{out} is a folder: name a file in it.")
    if real.exists() and not real.is_file():
        raise Problem(f"{out} is no plain file, and can't be replaced by one: choose another name.")
    if not real.parent.is_dir():
        raise Problem(f"{out} can't be written: there is no folder {real.parent}.")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise Problem(f"{out} can't be written: the folder {real.parent} can't be written to.")
    return real


def keep_apart(outs: Iterable[Path], reads: Iterable[Path]) -> None:
    """Raise Problem if a file would be written over one that is read, or over another that is written."""
    written = list(outs)
    others = [(one, _real(one)) for one in (*written, *reads)]
    for place, out in enumerate(written):
        real = _real(out)
        for number, (one, where) in enumerate(others):
            if number == place:
                continue
            if where == real:
                raise Problem(f"{one} would be overwritten: choose another name for {out}.")
            if where == f"{real}.part" or where.startswith((f"{real}.part.", f"{real}.penstock.json")):
                raise Problem(f"{one} has the name of a file that is made for {out} meanwhile: choose another.")


def plain_file(file: Path, otherwise: str) -> None:
    """Raise Problem if it is a pipe or a device, which can be read once only; `otherwise` says what to do."""
    if file.exists() and not file.is_file() and not file.is_dir():
        raise Problem(f"{file} is no plain file, and is read more than once: {otherwise}.")


def _real(file: Path) -> str:
    return os.path.realpath(file)
