"""The command line of the worker: `python -m penstock_worker gpu …`, `… io`, `… pool --pool NAME`, `… tune …`."""

from __future__ import annotations

import argparse

from penstock import failpoint, logs
from penstock.domain.engines.profiles import PROFILES, VLLM
from penstock.model_source.no_model import NoModel
from penstock.settings import load
from penstock.store import revision
from penstock_worker import process
from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.tuning import command as tuning


def main() -> None:
    """Read the command line and run until SIGTERM."""
    parser = argparse.ArgumentParser(prog="penstock_worker", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    gpu = kinds.add_parser("gpu", help="own one engine and run slices on it")
    gpu.add_argument("--model", required=True, metavar="[NAME=]DIR_OR_HF_ID", help="the model to serve, and its name")
    gpu.add_argument(
        "--engine",
        choices=tuple(PROFILES),
        default=VLLM.name,
        help="; ".join(f"{profile.name}: {profile.words}" for profile in PROFILES.values()),
    )
    gpu.add_argument("--engine-arg", action="append", default=[], metavar="ARG", help="passed to the engine as it is")
    gpu.add_argument(
        "--promote", action="store_true", help="where no other machine serves it, be what the name stands for"
    )
    gpu.add_argument(
        "--in-pool",
        type=int,
        metavar="NUMBER",
        help="serve this version of the model; drained, give back what is held: another has its turn",
    )
    kinds.add_parser("io", help="validate and assemble batches")
    tuning.add_to(kinds.add_parser("tune", help="look for the arguments with which a model is fastest here"))
    pool = kinds.add_parser("pool", help="let the versions of a pool take turns on this machine")
    pool.add_argument("--pool", required=True, metavar="NAME", help="the pool that it is a host of")
    given = parser.parse_args()
    settings = load()
    if given.kind == "tune":  # it needs no database
        raise SystemExit(tuning.main(settings, given))
    revision.require(settings.database_url)
    logs.configure(settings.log_level)
    failpoint.arm(settings.failpoints)
    if given.kind == "io":
        process.io(settings)
    elif given.kind == "pool":
        process.pool(settings, given.pool)
    else:
        name, named, source = given.model.partition("=")
        try:
            if named and not source:
                raise BadLaunch(f"{given.model!r} names no source: say NAME=SOURCE.")
            process.gpu(
                settings, name, source if named else name, given.engine, given.engine_arg, given.promote, given.in_pool
            )
        except (BadLaunch, NoModel) as error:
            raise SystemExit(f"penstock worker: {error}") from error
