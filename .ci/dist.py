# SPDX-License-Identifier: Apache-2.0
"""Make what is released: an sdist and a wheel of the commit that is checked out, the same bytes wherever they are made.

    python .ci/dist.py OUT [--no-isolation]

Needs git and the package `build`. What is not committed is not in them. The version is that of the tag (v0.1.0 gives
0.1.0). Neither clock, umask, user nor folder can be seen in the files: times are those of the commit, modes are 0644
or 0755, and the wheel is built from the sdist. The release of setuptools can: it stands in the wheel's WHEEL file.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600
"""Seconds for one build; the first one may have to download setuptools."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for both files, made if it is not there")
    parser.add_argument(
        "--no-isolation", action="store_true", help="build with the setuptools that is installed here"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.umask(0o022)  # the modes of files go into a wheel
    with tempfile.TemporaryDirectory(prefix="compilepool-dist-") as name:
        for file in make(Path(name), arguments.out.resolve(), isolated=not arguments.no_isolation):
            print(file)


def make(work: Path, out: Path, *, isolated: bool) -> list[Path]:
    """Both files in `out`. work: an empty folder."""
    clone = work / "clone"
    # A clone has what is committed, with the modes of our umask; a shallow one cannot be cloned any other way.
    call("git", "clone", "--quiet", "--no-local", f"file://{ROOT}", str(clone))
    epoch = call("git", "-C", str(clone), "log", "-1", "--format=%ct").strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    build(clone, work / "built", "--sdist", isolated, environment)
    (made,) = (work / "built").glob("*.tar.gz")
    sdist = out / made.name
    repack(made, sdist, int(epoch))
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "unpacked", filter="data")
    (source,) = (work / "unpacked").iterdir()
    build(source, out, "--wheel", isolated, environment)
    (wheel,) = out.glob(f"{made.name.removesuffix('.tar.gz')}-*.whl")
    return [sdist, wheel]


def build(source: Path, out: Path, kind: str, isolated: bool, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "build", kind, "--outdir", str(out), str(source)]
    call(*command, *([] if isolated else ["--no-isolation"]), environment=environment)


def repack(sdist: Path, to: Path, epoch: int) -> None:
    """The same files in the order of their names, of nobody, all of one time. epoch: seconds since 1970."""
    raw = io.BytesIO()
    with (
        tarfile.open(sdist) as before,
        tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as after,
    ):
        for member in sorted(before.getmembers(), key=lambda one: one.name):
            fresh = tarfile.TarInfo(member.name)
            fresh.type, fresh.size, fresh.mtime = member.type, member.size, epoch
            fresh.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            after.addfile(fresh, before.extractfile(member) if member.isfile() else None)
    with (
        to.open("wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=epoch, compresslevel=9) as packed,
    ):
        packed.write(raw.getvalue())


def call(*command: str, environment: dict[str, str] | None = None) -> str:
    """Its standard output. A command that fails ends this one with all that it said."""
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
