# SPDX-License-Identifier: Apache-2.0
"""The pictures: what they show is what there is, and all of them can be read in the dark, and by those who cannot see."""

from __future__ import annotations

import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_compilepool.records import PoolState

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
SVG = "{http://www.w3.org/2000/svg}"
TICK = 0.03
"""Seconds: the kernel tells when a process began in hundredths, and the clock since boot has some of its own."""


@pytest.fixture(scope="module")
def record():
    return json.loads((IMAGES / "timeline.json").read_text())


@pytest.fixture(scope="module")
def events(record):
    """Begin and end of each, by name."""
    return {event["what"]: (event["at"], event["at"] + event["took"]) for event in record["events"]}


def texts(name):
    return ["".join(node.itertext()) for node in ElementTree.parse(IMAGES / name).iter(f"{SVG}text")]


def test_the_timeline_is_drawn_from_its_record(record):
    spec = importlib.util.spec_from_file_location("timeline", IMAGES / "timeline.py")
    timeline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(timeline)
    drawn = (IMAGES / "timeline.svg").read_text()
    assert drawn == timeline.draw(record), "it is not of this record any more: python docs/images/timeline.py"


def test_the_record_has_every_process_once(record):
    pids = [record["parent"], record["sidecar"]["pid"], *(worker["pid"] for worker in record["workers"])]
    assert len(set(pids)) == len(pids) == 6
    for pid in pids:
        assert str(pid) in texts("timeline.svg")


def test_its_events_came_one_after_the_other(events):
    assert list(events) == ["warm", "ready", "quiesce", "wakeup", "shutdown"]
    for (_, ended), (began, _) in pairwise(events.values()):
        assert ended <= began


def test_its_processes_live_when_they_should(record, events):
    """The sidecar from warm to shutdown; two workers until the quiesce has ended, two others from the wakeup on."""
    sidecar = record["sidecar"]
    assert events["warm"][0] - TICK <= sidecar["started"] <= events["warm"][1] + TICK
    assert events["shutdown"][0] <= sidecar["ended"] <= events["shutdown"][1] + TICK
    first, second = record["workers"][:2], record["workers"][2:]
    for worker in first:
        assert events["ready"][0] <= worker["started"] <= events["ready"][1] + TICK
        assert events["quiesce"][0] <= worker["ended"] <= events["quiesce"][1] + TICK
    for worker in second:
        assert events["wakeup"][0] - TICK <= worker["started"] <= events["wakeup"][1] + TICK
        assert events["shutdown"][0] <= worker["ended"] <= sidecar["ended"] + TICK


def test_its_jobs_ran_in_workers_that_lived(record):
    lives = {worker["pid"]: worker for worker in record["workers"]}
    assert [job["number"] for job in record["jobs"]] == list(range(1, 16))
    for job in record["jobs"]:
        worker = lives[job["worker"]]
        assert worker["started"] - TICK < job["submitted"] <= job["began"] < job["ended"] <= worker["ended"]
        assert job["outcome"] == "done"
    for pid in lives:
        own = sorted((job["began"], job["ended"]) for job in record["jobs"] if job["worker"] == pid)
        assert all(ended <= began for (_, ended), (began, _) in pairwise(own)), "two at a time in one worker"


def test_every_state_is_in_the_diagram_and_on_its_page():
    states = {str(state) for state in PoolState}
    assert {text for text in texts("pool-states.svg") if re.fullmatch("[A-Z]{4,}", text)} == states
    page = (ROOT / "docs/explanation/pool.md").read_text()
    assert set(re.findall(r"^\| ([A-Z]+) \|", page, re.MULTILINE)) == states


@pytest.mark.parametrize("name", [file.name for file in sorted(IMAGES.glob("*.svg"))])
def test_it_can_be_read_in_the_dark_on_a_phone_and_aloud(name):
    tree = ElementTree.parse(IMAGES / name).getroot()
    left, top, width, _ = map(float, tree.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    assert width <= 440, "text of 12 points would be too small at the width of a phone"
    assert tree.find(f"{SVG}title").text
    assert "prefers-color-scheme: dark" in tree.find(f"{SVG}style").text


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.md"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_every_picture_is_there_and_says_in_words_what_it_shows(page):
    for words, target in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / target).is_file(), target
        assert len(words.split()) >= 5, f"{target}: {words!r}"
