# SPDX-License-Identifier: Apache-2.0
"""Test suites that nobody here wrote, without the plugin and with it: which outcome changes, which leak is told.

    python benchmarks/foreign.py [--work FOLDER] [--suite click ...] [--source torch=test_compile_worker.py] [--json FILE]

Each suite comes from its project's sdist, by pip, and runs in an environment of its own beside torch, as it is: no file
of it is changed, no test is left out but by the arguments in SUITES. It runs four times, in the same order: the plugin
not installed, installed, installed with --compilepool-leaks=fail, and once more not installed, which shows the tests
that end now so, now so by themselves. Outcomes are compared test by test, by JUnit's XML. The exit status is 0 where
no test failed that had passed twice without the plugin; leaks are shown, to be judged by a person.
Takes minutes, and an index; it is no part of CI.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOLDS = ("pytest_compilepool", "suites", "fixtures", "pyproject.toml", "README.md", "LICENSE")
LEAKS = "compilepool.leaks"
MODES: dict[str, tuple[str, ...]] = {
    "absent": (),
    "auto": (),
    "fail": ("--compilepool-leaks=fail",),
    "again": (),
}
WITHOUT = ("absent", "again")
BAD = ("failed", "error", "")


@dataclass(frozen=True)
class Suite:
    """One suite. package: of its sdist, with the release, or "" where --source names its file; arguments: for pytest, from
    the top of the sdist; requires: what its tests import; hidden: folders of the sdist that are the package itself, which
    is to be imported as installed; limit: seconds for one run."""

    package: str
    arguments: tuple[str, ...]
    requires: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    limit: int = 600


SUITES = {
    "pytest": Suite(
        "pytest==9.2.0",
        (
            *(
                f"testing/test_{name}.py"
                for name in (
                    "capture",
                    "junitxml",
                    "monkeypatch",
                    "recwarn",
                    "runner",
                    "skipping",
                    "subtests",
                )
            ),
            *(
                f"testing/test_{name}.py"
                for name in ("terminal", "threadexception", "tmpdir", "unraisableexception")
            ),
            "doc/en",
        ),
        ("attrs", "hypothesis", "requests", "setuptools", "xmlschema"),
    ),
    "pytest-xdist": Suite(
        "pytest-xdist==3.8.0",
        (*(f"testing/test_{name}.py" for name in ("dsession", "plugin", "remote", "workermanage")),),
        ("filelock",),
    ),
    "execnet": Suite("execnet==2.1.2", ("testing",), ("pytest-timeout",)),
    "anyio": Suite(
        "anyio==4.16.0",
        (
            *(
                f"tests/test_{name}.py"
                for name in ("from_thread", "signals", "subprocesses", "to_process", "to_thread")
            ),
        ),
        ("anyio[trio]", "blockbuster", "hypothesis", "pytest-mock", "pytest-timeout", "trustme", "uvloop"),
    ),
    "click": Suite("click==8.5.1", ("tests",)),
    # Each test of it starts a sidecar, which imports torch.
    "torch": Suite("", ("test_compile_worker.py",), ("expecttest",), limit=1800),
}


@dataclass
class Run:
    """One run. seconds: of the whole command; outcomes: test -> passed, failed, error or skipped; leaks: test -> what was
    told; status: pytest's exit status."""

    status: int
    seconds: float
    outcomes: dict[str, str] = field(default_factory=dict)
    leaks: dict[str, str] = field(default_factory=dict)


@dataclass
class Difference:
    """A test that ended otherwise. without, with_: outcomes, "" where it was not there."""

    mode: str
    test: str
    without: str
    with_: str


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one; may be given again")
    parser.add_argument(
        "--source", action="append", default=[], help="NAME=FILE: where a suite without an sdist lies"
    )
    parser.add_argument("--work", type=Path, help="folder for environments, kept; without it a temporary one")
    parser.add_argument("--json", type=Path, help="write all outcomes there")
    arguments = parser.parse_args()
    sources = dict(one.split("=", 1) for one in arguments.source)
    chosen = arguments.suite or [name for name, one in SUITES.items() if one.package or name in sources]
    with tempfile.TemporaryDirectory(prefix="compilepool-foreign-") as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        bench = Bench(work)
        found = {name: bench.try_out(name, SUITES[name], sources.get(name)) for name in chosen}
    if arguments.json:
        shown = {name: {mode: asdict(one) for mode, one in runs.items()} for name, runs in found.items()}
        arguments.json.write_text(json.dumps(shown, indent=1) + "\n")
    print("\n".join(table(found)))
    return int(any(differences(runs) for runs in found.values()))


class Bench:
    """Environments and sources below one folder; what is there is used again."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._base = work / "base"
        self._plugin = work / "plugin"
        work.mkdir(parents=True, exist_ok=True)
        if not self._base.exists():
            venv.create(self._base, with_pip=False)
            pip(
                self._base,
                "--group",
                f"{ROOT / 'pyproject.toml'}:torch",
                "packaging",
                "psutil",
                "pyelftools",
                "pytest",
            )
        shutil.rmtree(self._plugin, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=work) as name:
            copy = Path(name, "copy")  # building leaves folders behind
            for one in HOLDS:
                take = shutil.copytree if (ROOT / one).is_dir() else shutil.copy
                copy.mkdir(exist_ok=True)
                take(ROOT / one, copy / one)
            pip(self._base, "--no-deps", "--target", str(self._plugin), str(copy))

    def try_out(self, name: str, suite: Suite, source: str | None) -> dict[str, Run]:
        """Its runs, by mode."""
        home = self._work / name
        python = self._environment(home, suite)
        folder = home / "source"
        if not folder.exists():
            unpack(home, suite, folder) if suite.package else copy(source, folder)
        for one in suite.hidden:
            shutil.rmtree(folder / one, ignore_errors=True)
        runs = {}
        for mode, options in MODES.items():
            self._show_plugin(home, mode not in WITHOUT)
            runs[mode] = run(python, suite, folder, home / f"{mode}.xml", options)
            print(
                f"{name}, {mode}: {counted(runs[mode])}, {runs[mode].seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        return runs

    def _environment(self, home: Path, suite: Suite) -> Path:
        place = home / "venv"
        if not place.exists():
            venv.create(place, with_pip=False)
            # torch's environment takes a minute to make: one is enough, and each suite's own packages come before it.
            (packages_of(place) / "zz-base.pth").write_text(f"{packages_of(self._base)}\n")
            pip(place, *([suite.package] if suite.package else []), *suite.requires)
        return place / "bin/python"

    def _show_plugin(self, home: Path, installed: bool) -> None:
        """Not `-p no:compilepool`: sessions that a suite starts for itself would have it, or not, in spite of that."""
        pth = packages_of(home / "venv") / "zz-plugin.pth"
        pth.unlink(missing_ok=True)
        if installed:
            pth.write_text(f"{self._plugin}\n")


def packages_of(place: Path) -> Path:
    (found,) = place.glob("lib/python*/site-packages")
    return found


def pip(place: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(place), "install", "--quiet", *arguments]
    subprocess.run(command, check=True, timeout=1200)


def unpack(home: Path, suite: Suite, folder: Path) -> None:
    name = suite.package.partition("==")[0]
    pip_download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name]
    subprocess.run([*pip_download, "--dest", str(home), suite.package], check=True, timeout=600)
    (archive,) = home.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(home / "unpacked", filter="data")
    (top,) = (home / "unpacked").iterdir()
    top.rename(folder)


def copy(source: str | None, folder: Path) -> None:
    if source is None:
        raise SystemExit("this suite is in no sdist: say --source NAME=FILE")
    folder.mkdir(parents=True)
    shutil.copy(source, folder)


def run(python: Path, suite: Suite, folder: Path, xml: Path, options: tuple[str, ...]) -> Run:
    """Run it once; a run that is over its limit is ended with all that it started, and has no outcomes."""
    xml.unlink(missing_ok=True)
    # Not `python -m pytest`: that would put the source folder before what is installed.
    command = [str(python), "-c", "import sys, pytest; sys.path[:1] = []; sys.exit(pytest.main())"]
    command += [
        "-p",
        "no:cacheprovider",
        f"--junitxml={xml}",
        "-o",
        "junit_family=xunit2",
        *options,
        *suite.arguments,
    ]
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "PYTHON"))
    }
    # Another pytest of this user removes all but the three newest folders of the usual place, with those in use.
    environment["PYTEST_DEBUG_TEMPROOT"] = str(xml.parent)
    environment |= {"PYTHONHASHSEED": "0", "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    began = time.monotonic()
    with xml.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            status = process.wait(suite.limit)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            status = process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
    return read(xml, status, time.monotonic() - began)


def read(xml: Path, status: int, seconds: float) -> Run:
    """What one run has left. A test of which there are several of one name is numbered."""
    found = Run(status, round(seconds, 1))
    if not xml.exists():
        return found
    seen: Counter[str] = Counter()
    for case in ElementTree.parse(xml).iter("testcase"):
        test = f"{case.get('classname')}::{case.get('name')}"
        seen[test] += 1
        test += f" ({seen[test]})" if seen[test] > 1 else ""
        told = [one.get("value", "") for one in case.iter("property") if one.get("name") == LEAKS]
        if told:
            found.leaks[test] = told[-1]
        found.outcomes[test] = outcome(case, bool(told))
    return found


def outcome(case: ElementTree.Element, leaked: bool) -> str:
    """Of one test, its leak not being counted: an error at teardown that a leak is the reason of is none of the test's."""
    tags = [one.tag for one in case if one.tag in ("failure", "error", "skipped")]
    if leaked:
        tags = [one.tag for one in case if one.tag in tags and LEFT_BEHIND not in (one.text or "")]
    if not tags:
        return "passed"
    return {"failure": "failed", "error": "error", "skipped": "skipped"}[tags[0]]


LEFT_BEHIND = "left behind"


def differences(runs: dict[str, Run]) -> list[Difference]:
    """Tests that went badly, or are not there, with the plugin, and went well in both runs without it.

    A run that has no result, where both without the plugin have one, is such a difference, too.
    """
    first, second = (runs[mode] for mode in WITHOUT)
    found = []
    for mode in (mode for mode in runs if mode not in WITHOUT):
        after = runs[mode].outcomes
        if first.outcomes and second.outcomes and not after:
            found.append(Difference(mode, "the whole run", counted(first), counted(runs[mode])))
            continue
        for test, before in first.outcomes.items():
            ended = after.get(test, "")
            if ended in BAD and not {before, second.outcomes.get(test, "")} & {*BAD}:
                found.append(Difference(mode, test, before, ended))
    return found


def unsteady(runs: dict[str, Run]) -> list[str]:
    """Tests that ended otherwise in the second run without the plugin."""
    first, second = (runs[mode].outcomes for mode in WITHOUT)
    return sorted(test for test in {*first, *second} if first.get(test) != second.get(test))


def counted(one: Run) -> str:
    """Such as "12 passed, 1 skipped"."""
    numbers = Counter(one.outcomes.values())
    return (
        ", ".join(f"{number} {name}" for name, number in sorted(numbers.items()))
        or f"no result ({one.status})"
    )


def table(found: dict[str, dict[str, Run]]) -> list[str]:
    """Lines of Markdown: a row a suite, then what changed and what leaked."""
    heads = ("suite", "without the plugin", "seconds: without, auto, fail, without", "unsteady without")
    heads += ("new failures: auto, fail", "leaks: auto, fail")
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, runs in found.items():
        changed = Counter(one.mode for one in differences(runs))
        cells = [
            f"{SUITES[name].package or name}",
            counted(runs["absent"]),
            ", ".join(f"{one.seconds:.0f}" for one in runs.values()),
            str(len(unsteady(runs))),
            f"{changed['auto']}, {changed['fail']}",
            f"{len(runs['auto'].leaks)}, {len(runs['fail'].leaks)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for name, runs in found.items():
        for one in differences(runs):
            lines.append(
                f"{name}, {one.mode}: {one.test}: {one.without or 'not there'} -> {one.with_ or 'not there'}"
            )
        for test, told in {**runs["auto"].leaks, **runs["fail"].leaks}.items():
            lines.append(f"{name}: {test} left behind: {told}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
