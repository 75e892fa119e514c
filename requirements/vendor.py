"""Fetch the console's vendored files anew: what `vendor.toml` lists, from the packages that npm has.

Standard library only; run by `make vendor`, which needs npm. To take a new version, write it in `vendor.toml` with the
integrity that `npm view PACKAGE@VERSION dist.integrity` says.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "platform" / "penstock" / "console" / "static" / "vendor"


def main() -> None:
    """Fetch each package, compare it with its integrity, and put the files that are named where they belong."""
    for package in tomllib.loads((FOLDER / "vendor.toml").read_text())["package"]:
        with tempfile.TemporaryDirectory() as scratch:
            command = ["npm", "pack", "--silent", f"{package['name']}@{package['version']}"]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"[vendor] {' '.join(command)}: {done.stderr.strip()}")
            packed = Path(scratch) / done.stdout.strip()
            digest = "sha512-" + base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
            if digest != package["integrity"]:
                sys.exit(f"[vendor] {package['name']} {package['version']} is {digest}, not {package['integrity']}")
            with tarfile.open(packed) as archive:
                for file in package["file"]:
                    member = archive.extractfile(f"package/{file['from']}")
                    if member is None:
                        sys.exit(f"[vendor] {package['name']} has no {file['from']}")
                    body = member.read()
                    found = hashlib.sha256(body).hexdigest()
                    if found != file["sha256"]:
                        sys.exit(f"[vendor] {file['from']} has the SHA-256 {found}, not {file['sha256']}")
                    (FOLDER / file["to"]).write_bytes(body)
                    print(f"[vendor] {file['to']} of {package['name']} {package['version']}")


if __name__ == "__main__":
    main()
