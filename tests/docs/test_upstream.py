# SPDX-License-Identifier: Apache-2.0
"""docs/upstream: its scripts say what its pages say, and its pages what cells and expectations say."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import tiers
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/upstream"
REPRO = FOLDER / "repro"
PAGES = sorted(file for file in FOLDER.glob("*.md") if file.name != "README.md")
SCRIPTS = sorted(file for file in REPRO.glob("*.py") if file.name != "bounded.py")
CHOSEN = SCRIPTS if tiers.ALL else SCRIPTS[::3]
"""Those that are run: what they show changes with torch, and not with this project."""
# Nothing can be started for these within the bound of a script.
WITHOUT_SCRIPT = {"vllm-left-segments", "vllm-cpu-warm-start"}
HEADINGS = ["Steps to reproduce", "Where it was seen", "Cause", "Suggestion"]
WHAT = {"torch": "torch", "Triton": "triton", "pytest-xdist": "pytest-xdist", "vLLM": "vllm"}
GONE, THERE, CANNOT_TELL = 0, 1, 2

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the scripts look into /proc")


def table(page):
    """The rows of the first table of a page, by their first column."""
    rows = re.findall(r"^\| ([a-z][a-z ]+) \| (.*) \|$", page.read_text(), re.MULTILINE)
    return dict(rows)


def versions(page, row):
    """What stands in such a row: of what, and the versions."""
    what, _, listed = table(page).get(row, "-").partition(" ")
    return what, listed.split(", ") if listed else []


def promises(page):
    return re.findall(r"`([^`]+)`", table(page).get("promises", ""))


def script_of(page):
    return REPRO / f"{page.stem.replace('-', '_')}.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_its_parts(page):
    text = page.read_text()
    assert re.match(r"# .+\n\n.+\n\n\| \| \|\n", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    rows = table(page)
    assert {"component", "seen on", "not seen on", "known as"} <= {*rows}
    what, seen = versions(page, "seen on")
    assert what in WHAT
    assert seen
    assert not {*seen} & {*versions(page, "not seen on")[1]}
    assert "](http" in rows["known as"] or rows["known as"] == "no thread is known"
    assert 20 <= len(text.splitlines()) <= 60
    if page.stem not in WITHOUT_SCRIPT:
        assert f"](repro/{script_of(page).name})" in text
        assert f"$ python docs/upstream/repro/{script_of(page).name}\n" in text


def test_each_script_has_a_page_and_the_reverse():
    pages = {script_of(page).name for page in PAGES if page.stem not in WITHOUT_SCRIPT}
    assert {script.name for script in SCRIPTS} == pages


def test_the_index_says_what_the_pages_say():
    lines = (FOLDER / "README.md").read_text().splitlines()
    rows = {row.split("](")[1].split(")")[0]: row for row in lines if row.startswith("| [")}
    assert {*rows} == {page.name for page in PAGES}
    for page in PAGES:
        title = page.read_text().splitlines()[0].removeprefix("# ")
        component, seen, gone = (
            table(page)["component"].split(",")[0],
            ", ".join(versions(page, "seen on")[1]),
            ", ".join(versions(page, "not seen on")[1]) or "-",
        )
        expected = f"| [{title}]({page.name}) | {component} | {seen} | {gone} | {table(page)['known as']} |"
        assert rows[page.name] == expected


def expectations():
    return tomllib.loads((ROOT / "suites/expectations.toml").read_text())["expect"]


def pages_of(expected):
    """The pages that name this feature and link this bug."""
    return [
        page
        for page in PAGES
        if expected["feature"] in promises(page) and f"]({expected['bug']})" in table(page)["known as"]
    ]


def test_each_expectation_is_on_one_page():
    for expected in expectations():
        found = [page.stem for page in pages_of(expected)]
        assert len(found) == 1, f"{expected['feature']} ({expected['bug']}) is on {found or 'no page'}"
    known = {expected["feature"] for expected in expectations()}
    assert {name for page in PAGES for name in promises(page)} <= known


def test_pages_say_what_the_cells_say():
    cells = [json.loads(file.read_text()) for file in sorted((ROOT / "docs/matrix").glob("*.json"))]
    assert cells
    for expected in expectations():
        (page,) = pages_of(expected)
        seen = versions(page, "seen on")[1]
        for cell in cells:
            torch = cell["run_info"]["torch"].partition("+")[0]
            got = {one["id"]: one.get("got") for one in cell["results"]}.get(expected["feature"])
            if got in expected["status"] and torch in SpecifierSet(expected["torch"]):
                assert torch in seen, f"{page.name}: {expected['feature']} is {got} on {torch}"
            if got == "PASS":
                # Others of the page's promises may be broken there.
                others = {other["feature"] for other in expectations() if other["bug"] == expected["bug"]}
                alone = len(others & {*promises(page)}) == 1
                assert not (alone and torch in seen), f"{page.name}: {expected['feature']} is kept on {torch}"


@pytest.mark.parametrize("script", [*SCRIPTS, REPRO / "bounded.py"], ids=lambda script: script.stem)
def test_a_script_needs_nothing_of_this_package(script):
    allowed = {*sys.stdlib_module_names}
    if script.name != "bounded.py":
        allowed |= {"bounded", "torch", "triton", "pytest", "xdist", "vllm"}
    # And what it writes into files, to be imported by others.
    texts = [script.read_text()]
    for text in texts:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "a relative import"]
            else:
                names = []
                if isinstance(node, ast.Constant) and re.search(
                    r"^import .*\n", str(node.value), re.MULTILINE
                ):
                    texts.append(node.value)
            assert {name.partition(".")[0] for name in names} <= allowed, names


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each script said here: its line of `upstream_scripts.py` by its name, and what they have left."""
    folder = tmp_path_factory.mktemp("left")
    command = [sys.executable, str(Path(__file__).with_name("upstream_scripts.py")), "4", *map(str, CHOSEN)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            # The scripts end what they have started when they are asked to.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    lines = [json.loads(line) for line in out.splitlines()]
    left = [*lines.pop()["left"], *(str(path) for path in folder.iterdir())]
    return {line["script"]: line for line in lines}, left


def installed(name):
    """Its version, without what a build adds to it; None where it is not here."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def is_here(what, entry):
    """Whether this is what is installed: `2.13.0`, or `3.8.0 (pytest 9.2.0)`, which is two of them."""
    version, _, other = entry.removesuffix(")").partition(" (")
    wanted = {WHAT[what]: version}
    if other:
        name, wanted_version = other.split()
        wanted[name] = wanted_version
    return all(installed(name) == one for name, one in wanted.items())


def expected_here(page):
    """The exit status that the page says its script has here; None where it says nothing of what is installed."""
    what, _ = versions(page, "seen on")
    if installed(WHAT[what]) is None or "a machine with a GPU" in page.read_text():
        return CANNOT_TELL
    rows = {"seen on": THERE, "not seen on": GONE, "cannot be told on": CANNOT_TELL}
    for row, status in rows.items():
        if any(is_here(what, entry) for entry in versions(page, row)[1]):
            return status
    return None


def without_numbers(text):
    return re.sub(r"\d+", "N", text)


@linux
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not here")
def test_each_script_says_what_its_page_says(said):
    found, left = said
    assert left == []
    wrong = []
    for page in PAGES:
        if page.stem in WITHOUT_SCRIPT or script_of(page) not in CHOSEN:
            continue
        line = found[script_of(page).stem]
        expected = expected_here(page)
        if line["status"] not in ({GONE, THERE, CANNOT_TELL} if expected is None else {expected}):
            wrong.append(f"{page.name} would have {expected}: {line}")
        shown = re.search(r"^\$ python .*\n(.*)$", page.read_text(), re.MULTILINE)[1]
        version = re.search(r"\([a-zA-Z-]+ [^)]*\)\n?$", line["printed"])
        if (
            version
            and version[0].strip() in shown
            and without_numbers(shown) != without_numbers(line["printed"].strip())
        ):
            wrong.append(f"{page.name} shows {shown!r}, and it says {line['printed']!r}")
    assert not wrong, "\n".join(wrong)


SLEEPER = """
import os, signal, subprocess, sys, time
from bounded import CannotTell, report

def check():
    open("here", "w").close()
    inner = subprocess.Popen(["sh", "-c", "sleep 300 & echo $!"], stdout=subprocess.PIPE, start_new_session=True)
    pid = inner.stdout.readline().decode().strip()
    with open(os.environ["TELL"], "w") as file:
        file.write(f"{pid} {os.getcwd()}")
    BODY

report(check, "pytest", 2)
"""


@linux
@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ("return True, 'so it is'", THERE, "there: so it is (pytest "),
        ("return False, 'all is well'", GONE, "not there: all is well (pytest "),
        ("raise CannotTell('no way')", CANNOT_TELL, "cannot tell: no way (pytest "),
        ("time.sleep(300)", CANNOT_TELL, "cannot tell: the check took more than 2 s (pytest "),
        ("os.kill(os.getpid(), 9)", CANNOT_TELL, "cannot tell: the process of the check was ended (pytest "),
        ("1 / 0", CANNOT_TELL, "cannot tell: the check itself failed: ZeroDivisionError("),
        ("sys.exit(1)", CANNOT_TELL, "cannot tell: the check itself failed: SystemExit("),
        ("os.kill(os.getppid(), signal.SIGTERM); time.sleep(300)", CANNOT_TELL, ""),
    ],
)
def test_whatever_a_check_does_it_is_bounded_and_nothing_is_left(tmp_path, body, status, says):
    script = tmp_path / "sleeper.py"
    script.write_text(textwrap.dedent(SLEEPER).replace("BODY", body))
    tell = tmp_path / "tell"
    began = time.monotonic()
    told = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPRO), "TELL": str(tell)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (told.returncode, told.stderr) == (status, "")
    assert told.stdout.startswith(f"sleeper: {says}") if says else told.stdout == ""
    assert time.monotonic() - began < 30
    pid, folder = tell.read_text().split()
    assert not Path("/proc", pid).exists()
    assert not Path(folder).exists()


ENDS_IT_AGAIN_AND_AGAIN = """
        check = os.getpid()
        bounded = os.getppid()
        others = [subprocess.Popen(["sleep", "300"], start_new_session=True) for _ in range(40)]
        if os.fork() == 0:
            os.setsid()
            while os.getppid() == check:
                time.sleep(0.001)
            while True:
                os.kill(bounded, signal.SIGTERM)
                time.sleep(0.0005)
        with open(os.environ["TELL"], "w") as file:
            file.write(" ".join([os.getcwd(), *(str(other.pid) for other in others)]))
        return True, "so it is"
"""


@linux
def test_who_ends_it_while_it_cleans_up_does_not_keep_it_from_that(tmp_path):
    script, tell = tmp_path / "sleeper.py", tmp_path / "tell"
    body = textwrap.dedent(ENDS_IT_AGAIN_AND_AGAIN).replace("\n", "\n    ")
    head, _, rest = textwrap.dedent(SLEEPER).partition("def check():\n")
    script.write_text(f"{head}def check():{body}\n{rest.partition('BODY')[2]}")
    env = {**os.environ, "PYTHONPATH": str(REPRO), "TELL": str(tell)}
    told = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode in (THERE, CANNOT_TELL), told.stderr
    folder, *pids = tell.read_text().split()
    assert len(pids) == 40
    assert not [pid for pid in pids if Path("/proc", pid).exists()]
    assert not Path(folder).exists()


ROW_OF = {"there": "seen on", "not there": "not seen on", "cannot tell": "cannot be told on"}


def test_the_line_that_a_page_shows_is_what_its_script_would_say():
    wrong = []
    for page in PAGES:
        if page.stem in WITHOUT_SCRIPT:
            continue
        shown = re.search(r"^\$ python .*\n(.*)$", page.read_text(), re.MULTILINE)[1]
        script, _, rest = shown.partition(": ")
        word = next((word for word in ROW_OF if rest.startswith(f"{word}: ")), "")
        version = re.search(r"\([\w-]+ (\d[\w.]*)(?:\+\w+)?\)$", rest)
        lists = " ".join(versions(page, ROW_OF.get(word, ""))[1])
        if script != script_of(page).stem or (version[1] not in lists if version else word != "cannot tell"):
            wrong.append(f"{page.name}: {shown}")
    assert not wrong, "\n".join(wrong)
