# SPDX-License-Identifier: Apache-2.0
"""Build the wheel and use it as a stranger would: in an empty environment, without torch, far from here.

    python tests/packaging/check_wheel.py [--python PYTHON] [--wheel FILE] [--dependencies lowest]

Run by .ci/run and by `tox -e wheel`; needs the dependency groups `build` and `typing`, pip, and an index
for what the wheel depends on. Prints what it does; the exit status is 0 if all of it went well.
"""

from __future__ import annotations

import argparse
import email
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MUST_HOLD = (
    "pytest_compilepool/py.typed",
    "pytest_compilepool/plugin.py",
    "pytest_compilepool/conformance/inject/sitecustomize.py",
    "pytest_compilepool/suites/__init__.py",
    "pytest_compilepool/suites/expectations.toml",
    "pytest_compilepool/suites/features.toml",
    "pytest_compilepool/suites/test_warm.py",
    "pytest_compilepool/workloads/jobs.py",
    "pytest_compilepool/workloads/_triton_source.py",
)
TESTS = """
def test_plain():
    assert 1 + 1 == 2

def test_wants_a_pool(compile_pool):
    raise AssertionError("without torch there is no pool to hand out")
"""

IMPORTS = """
import importlib.util
import pytest_compilepool.suites, pytest_compilepool.workloads
assert not importlib.util.find_spec("torch")
assert not importlib.util.find_spec("suites")
print(pytest_compilepool.workloads.__file__)
"""


class Failed(Exception):
    """Something is not as it must be; the text says what."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter of the empty environment; default: this"
    )
    parser.add_argument("--wheel", type=Path, help="a wheel that is there; default: one is built")
    parser.add_argument(
        "--dependencies",
        choices=["newest", "lowest"],
        default="newest",
        help="lowest: of each dependency exactly the release that is its lower bound",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compilepool-wheel-") as name:
        home = Path(name)
        wheel = arguments.wheel.resolve() if arguments.wheel else build(home)
        look_inside(wheel)
        python = install(home, wheel, arguments.python, arguments.dependencies == "lowest")
        outside = home / "outside"
        outside.mkdir()
        use_packages(python, outside)
        use_plugin(python, outside)
        use_command(python, outside)
        check_types(python, outside)
    print("wheel: all is well")


def build(home: Path) -> Path:
    """The wheel, by way of the sdist, so that this one is seen to be complete too."""
    copy, out = home / "source", home / "dist"
    left_behind = shutil.ignore_patterns(
        "__pycache__", "*.egg-info", "build", "dist", ".venv", ".tox", ".*_cache"
    )
    shutil.copytree(ROOT, copy, ignore=left_behind, symlinks=True)
    run("build sdist and wheel", [sys.executable, "-m", "build", "--outdir", str(out), str(copy)], cwd=home)
    wheels = list(out.glob("*.whl"))
    demand(len(wheels) == 1, f"one wheel was to be built, there are {len(wheels)}")
    return wheels[0]


def look_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    print(f"wheel: {wheel.name}, {len(names)} files, at the top: {', '.join(sorted(top))}")
    expected = {"pytest_compilepool", "-".join(wheel.name.split("-")[:2]) + ".dist-info"}
    demand(top == expected, f"at the top of the wheel must be {sorted(expected)}, there is {sorted(top)}")
    missing = [name for name in MUST_HOLD if name not in names]
    demand(not missing, f"the wheel lacks {', '.join(missing)}")


def install(home: Path, wheel: Path, base: str, lowest: bool) -> Path:
    """Returns the interpreter of an environment that holds the wheel and what it depends on.

    base: the interpreter that makes it; lowest: its dependencies are of the releases that are their lower bounds.
    """
    place = home / "empty"
    run("make an empty environment", [base, "-m", "venv", "--without-pip", str(place)], cwd=home)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    bounds = lower_bounds(wheel) if lowest else []
    run(
        f"install {wheel.name} {' '.join(bounds)}",
        [*pip, "install", "--quiet", str(wheel), *bounds],
        cwd=home,
    )
    run("its dependencies agree", [*pip, "check"], cwd=home)
    version = run("its Python", [str(python), "--version"], cwd=home)
    print(f"wheel: in {version.strip()}, {', '.join(bounds) or 'the newest of all'}")
    return python


def lower_bounds(wheel: Path) -> list[str]:
    """Such as "pytest==8.4", one for each dependency that is no extra."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    wanted = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    bounds = [one.replace(">=", "==") for one in wanted]
    demand(all(one.count("==") == 1 and "," not in one for one in bounds), f"each has one bound: {wanted}")
    return bounds


def use_packages(python: Path, outside: Path) -> None:
    what = "import its packages; torch is not there"
    run(what, [str(python), "-c", IMPORTS], cwd=outside, says=str(python.parents[1]))


def use_plugin(python: Path, outside: Path) -> None:
    (outside / "test_it.py").write_text(TESTS)
    ask = [str(python), "-m", "pytest", "-rs"]
    named = ["-p", "compilepool"]
    for what, options, env in (
        ("pytest -p compilepool, no other plugin", named, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        ("pytest -p compilepool", named, {}),
        ("pytest", [], {}),
    ):
        output = run(what, [*ask, *options], cwd=outside, env=env, says="1 passed, 1 skipped")
        reasons = [line for line in output.splitlines() if line.startswith("SKIPPED")]
        demand(len(reasons) == 1 and "torch" in reasons[0], f"a skip must name torch, got {reasons}")
    off = ["-p", "no:compilepool", "-k", "plain"]
    run("pytest -p no:compilepool", [*ask, *off], cwd=outside, says="1 passed")


def use_command(python: Path, outside: Path) -> None:
    command = str(python.with_name("compilepool" + python.suffix))
    run("compilepool --help", [command, "--help"], cwd=outside, says="doctor")
    told = run("compilepool doctor", [command, "doctor"], cwd=outside, says="torch", status=None)
    demand("Traceback" not in told, f"doctor must say what is missing, said:\n{told}")
    run("compilepool run --list", [command, "run", "--list"], cwd=outside, says="shutdown.idle")
    told = run("compilepool run", [command, "run"], cwd=outside, says="torch", status=4)
    demand("Traceback" not in told, f"run must say what is missing, said:\n{told}")


def check_types(python: Path, outside: Path) -> None:
    """Under the names that the packages have once installed, as whoever imports them gets them."""
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    run("install psutil's stubs beside it", [*pip, "install", "--quiet", "types-psutil"], cwd=outside)
    mypy = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    mypy += ["--python-executable", str(python), "--cache-dir", str(outside / "cache")]
    run("mypy on what was installed", [*mypy, "-p", "pytest_compilepool"], cwd=outside, says="Success")


def clean(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment, without what would lead back here or change what pytest does."""
    drop = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTEST_ADDOPTS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    return {**{name: value for name, value in os.environ.items() if name not in drop}, **(extra or {})}


def run(
    what: str,
    command: list[str],
    *,
    cwd: Path,
    env: dict[str, str] | None = None,
    says: str = "",
    status: int | None = 0,
) -> str:
    """Run it, and demand that exit status (None: any) and an output that has the text `says`.

    Returns the output.
    """
    began = time.monotonic()
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=cwd, env=clean(env), text=True, timeout=600, **pipes)
    output = done.stdout
    demand(
        status in (None, done.returncode),
        f"{what}: exit status {done.returncode}\n{' '.join(command)}\n{output}",
    )
    demand(says in output, f"{what}: the output lacks {says!r}\n{output}")
    print(f"wheel: {what}: {time.monotonic() - began:.1f} s", flush=True)
    return output


def demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Failed(otherwise)


if __name__ == "__main__":
    try:
        main()
    except Failed as problem:
        sys.exit(f"wheel: {problem}")
