# SPDX-License-Identifier: Apache-2.0
"""The pytest hooks of `-p compilepool`; each hands over to a room below. Loading this imports no torch and no psutil."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_compilepool import marks, newhooks, options
from pytest_compilepool.conformance.feature import ATTRIBUTE as FEATURE
from pytest_compilepool.fixtures import conformance as features
from pytest_compilepool.fixtures import engines, pools, proofs
from pytest_compilepool.keys import FAILED, LEAKS, OUTCOME, SECTIONS, SESSION, UNUSED, leased_by
from pytest_compilepool.report import conformance, terminal
from pytest_compilepool.session import Session

# Not `pytest_plugins`: for each name in that pytest asks every installed distribution for its entry points.
FIXTURES = (pools, proofs, engines, features)


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(newhooks)
    for module in FIXTURES:
        pluginmanager.register(module, module.__name__)


def pytest_configure(config: pytest.Config) -> None:
    marks.register(config)
    session = config.stash[SESSION] = Session(config)
    config.pluginmanager.register(session, "compilepool-session")
    config.pluginmanager.register(session.summary, "compilepool-summary")
    config.pluginmanager.register(session.verdicts, "compilepool-verdicts")
    if session.cell_file is not None:
        config.pluginmanager.register(session.cell_file, "compilepool-cell")


def pytest_report_header(config: pytest.Config) -> str:
    return Session.of(config).header()


def pytest_sessionstart(session: pytest.Session) -> None:
    Session.of(session.config).start()


def pytest_itemcollected(item: pytest.Item) -> None:
    Session.of(item.config).item_collected(item)
    feature = getattr(getattr(item, "function", None), FEATURE, None)
    if feature is not None:
        item.extra_keyword_matches.add(feature)  # `-k` takes what `--list` prints


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    # Whoever makes nodes without a session, as xdist's own tests do, may do so with a config that was only parsed.
    if SESSION in node.config.stash:
        Session.of(node.config).worker_starts(node.workerinput)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if SESSION in node.config.stash:
        Session.of(node.config).summary.told_by(node.gateway.id, getattr(node, "workeroutput", None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    Session.of(config).collected(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    Session.of(session.config).collection_finished(session)


# Outermost, so that pytest-timeout does not count how long a test waits for others.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    __tracebackhide__ = True  # an error of a test is no matter of this frame
    Session.of(item.config).about_to_run(item, nextitem)
    with Session.of(item.config).room.around(item):
        return (yield)


# First of all wrappers, so that what other plugins set up for the test is inside the two censuses.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    __tracebackhide__ = True
    Session.of(item.config).before_test(item)
    return (yield)


@pytest.hookimpl(specname="pytest_runtest_setup", tryfirst=True)
def pytest_runtest_setup_of_what_is_refused(item: pytest.Item) -> None:
    Session.of(item.config).refuse(item)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Generator[None, object, object]:
    __tracebackhide__ = True
    return (yield from Session.of(request.config).fixture(fixturedef))


def pytest_fixture_post_finalizer(fixturedef: Any, request: pytest.FixtureRequest) -> None:
    Session.of(request.config).fixture_ended(fixturedef)


# Inside the teardown phase, so that `-x`, reruns and JUnit see a leak that fails the test.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    __tracebackhide__ = True
    failing = True
    try:
        result = yield
        failing = False
    finally:
        Session.of(item.config).after_test(item, failing)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed or report.when != "teardown":
        item.stash[OUTCOME] = report.outcome
    if report.failed:
        item.stash[FAILED] = True
        terminal.add_sections(report, leased_by(item), item.stash.get(SECTIONS, []))
    if report.when == "teardown":
        terminal.attach(report, item.stash.get(LEAKS, []), item.stash.get(UNUSED, []))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    return terminal.status(report) or conformance.status(report)


# Innermost of the wrappers: after pytest has torn down what session fixtures hold (it may do so only here, after
# Ctrl-C), and before the summary is printed and an xdist worker says that it is done.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        Session.of(session.config).finish(session)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = Session.of(config)
    terminal.write_summary(terminalreporter, session.summary)
    conformance.write_summary(terminalreporter, session.verdicts)
