# SPDX-License-Identifier: Apache-2.0
"""The reference has everything that there is, and nothing that there is not.

Compared with what pytest, argparse and the files themselves say, not with what `docs/generate.py` would write.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_compilepool.cli.main import COMMANDS
from pytest_compilepool.cli.refusal import Parser
from pytest_compilepool.conformance.tomlfile import tables
from pytest_compilepool.leaks.base import Owned
from pytest_compilepool.leaks.census import builtin_checkers
from pytest_compilepool.pool import errors
from pytest_compilepool.pool.facade import CompilePool
from pytest_compilepool.suite import bundled

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"

TOLD = """
import json, pytest
@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    hooks = [name for name in dir(config.hook) if name.startswith("pytest_compilepool_")]
    markers = [line.split("(")[0].split(":")[0] for line in config.getini("markers")]
    print("told", json.dumps({"hooks": hooks, "markers": [m for m in markers if m.startswith("compilepool")]}))
"""


def page(name):
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


def sections(name, level="##"):
    """The texts below the headings of a page that are nothing but a name, by that name."""
    parts = re.split(rf"(?m)^{level} `([^`]+)`$", page(name))
    return {
        heading: re.split(r"(?m)^##? ", text)[0]
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


@functools.cache
def pytest_says(*arguments):
    """What a pytest prints that has this plugin and no other."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"}
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "pytest", "-p", "compilepool", *arguments]
    told = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=True, cwd=ROOT / "docs"
    )
    return told.stdout


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Hooks and markers that pytest knows."""
    (tmp_path / "told.py").write_text(TOLD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return json.loads(re.search(r"^told (.*)$", pytest_says("-p", "told", "--markers"), re.MULTILINE)[1])


def test_what_is_generated_is_up_to_date():
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, f"{run.stdout}{run.stderr}\nrun `python docs/generate.py`"


def test_options():
    text = pytest_says("--help")
    found = sections("options")
    assert {*found} == {*re.findall(r"(?m)^ +(--compilepool-[a-z-]+)", text)}
    inis = {re.search(r"Ini option: `(\w+)`", section)[1] for section in found.values()}
    assert inis == {*re.findall(r"(?m)^ +(compilepool_[a-z_]+) \(", text)}
    for flag, default in re.findall(r"(?m)^ +(--compilepool-[a-z-]+)[^-]*?\(default: ([^)]*)\)", text):
        assert f"- Default: {default}\n" in found[flag], flag


def test_fixtures():
    text = pytest_says("--fixtures")
    ours = re.findall(
        r"(?ms)^-+ fixtures defined from pytest_compilepool\S* -+$(.*?)(?=^-+ fixtures|^=+|\Z)", text
    )
    defined = dict(re.findall(r"(?m)^(\w+)(?: \[(\w+) scope\])? -- ", "".join(ours)))
    assert defined
    found = sections("fixtures", "###")
    assert {*found} == {*defined}
    for name, scope in defined.items():
        assert f"Scope: {scope or 'function'}. " in found[name], name


def test_markers(told):
    assert [f"@pytest.mark.{name}" for name in told["markers"]] == [*sections("markers")]


def test_hooks(told):
    assert {*sections("hooks")} == {*told["hooks"]}


def commands(parser, name):
    """Options and arguments by command, also of those below it."""
    below = [
        action for action in parser._actions if action.dest == "what" and isinstance(action.choices, dict)
    ]
    if below:
        return {f"{name} {word}": commands(sub, word)[word] for word, sub in below[0].choices.items()}
    flags = {option for option in parser._option_string_actions if option not in ("-h", "--help")}
    return {name: flags | {str(a.metavar or "update") for a in parser._actions if not a.option_strings}}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name):
    parser = Parser(prog=f"compilepool {name}")
    importlib.import_module(f"pytest_compilepool.cli.{name}").add_arguments(parser)
    section = page("cli").split(f"\n## `compilepool {name}`\n")[1].split("\n## ")[0]
    generated = section.split("<!-- end -->")[0]
    for command, wanted in commands(parser, name).items():
        part = generated.split(f"### `{command}`\n")[1].split("\n### ")[0] if " " in command else generated
        assert {*re.findall(r"(?m)^- `([^` ]+)", part)} == wanted, command
        assert f"compilepool {command}" in part
    assert "Exit status:" in section


def test_no_command_is_made_up():
    assert {*sections("cli")} == {f"compilepool {name}" for name in COMMANDS}


def feature_sections():
    return sections("features", "###")


def test_features():
    found = feature_sections()
    defined = {table.text("id"): table for table in tables(bundled() / "features.toml", "feature")}
    assert [*found] == [*defined]
    for identifier, table in defined.items():
        text = found[identifier]
        assert f"{table.text('title')}.\n\n> {table.text('must')}\n" in text
        assert f"mode {table.text('mode')}" in text
        assert all(f"`{need}`" in text for need in table.texts("needs")), identifier
        assert all(f"]({link})" in text for link in table.texts("seen")), identifier
    groups = re.findall(r"(?m)^## (\w+)$", page("features"))
    assert {*groups} == {identifier.partition(".")[0] for identifier in defined}


def test_requirements():
    needed = {
        need for table in tables(bundled() / "features.toml", "feature") for need in table.texts("needs")
    }
    assert {*re.findall(r"(?m)^\| `(\w+)` \| .{5,}\|$", page("features"))} == needed


def test_expectations():
    found = sections("expectations")
    entries = tables(bundled() / "expectations.toml", "expect")
    assert {*found} == {table.text("feature") for table in entries}
    listed = [line for text in found.values() for line in text.splitlines() if line.startswith("- ")]
    assert len(listed) == len(entries)
    for table in entries:
        lines = [
            line for line in found[table.text("feature")].splitlines() if f"`{table.text('torch')}`" in line
        ]
        assert len(lines) == 1, table.text("feature")
        assert f": {' or '.join(table.texts('status'))}, " in lines[0]
        assert f"({table.text('bug')})" in lines[0]
        assert table.text("note", "") in lines[0]


def test_keys_of_a_cell():
    schema = json.loads((ROOT / "pytest_compilepool/matrix/schema/cell-2.json").read_text(encoding="utf-8"))[
        "properties"
    ]
    wanted = [*schema, *schema["run_info"]["properties"], *schema["results"]["items"]["properties"]]
    rows = re.findall(r"(?m)^\| `(\w+)` \|", page("cell"))
    assert rows == wanted
    assert all(
        f"\n| {status} | " in page("cell")
        for status in schema["results"]["items"]["properties"]["status"]["enum"]
    )


@pytest.mark.parametrize("name", [checker.name for checker in builtin_checkers(Owned())])
def test_leak_checkers(name):
    assert f"`{name}`" in page("leaks").partition("\n\nWhat leaks is put right")[0]


@pytest.mark.parametrize("name", [name for name in vars(CompilePool) if not name.startswith("_")])
def test_members_of_a_pool(name):
    assert re.search(rf"`{name}\b", page("pool"))


@pytest.mark.parametrize("name", [name for name, value in vars(errors).items() if isinstance(value, type)])
def test_errors_of_a_pool(name):
    assert f"`{name}`" in page("pool")
