# SPDX-License-Identifier: Apache-2.0
"""The page in Chromium: what a click and the keys show, the filter, a narrow window, paper, and that no cell's text runs."""

from __future__ import annotations

import base64
import shutil

import pytest
from test_page import EVIL

from pytest_compilepool.matrix.cell import Result
from pytest_compilepool.matrix.page import page
from pytest_compilepool.matrix.table import Matrix

pytest.importorskip("jinja2")
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
Keys = webdriver.Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    folder = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def shown(browser, tmp_path, cell):
    """Show these cells, some by default. Returns the browser."""

    def show(cells=None, width=1200, musts=None):
        failed = Result(
            "warm.a",
            "XFAIL",
            "TIMEOUT",
            ["TIMEOUT"],
            "https://example.org/7",
            "no answer",
            signature="no answer < f",
            counters={"hits": 2},
        )
        usual = [
            cell({"warm.a": failed, "warm.b": "PASS", "quiesce.c": "UNSUPPORTED"}, run={"torch": "2.8.0"}),
            cell({"warm.a": "PASS", "warm.b": "PASS", "quiesce.c": "PASS"}, run={"torch": "2.9.1"}),
            cell(
                {"warm.a": "PASS", "warm.b": "PASS", "quiesce.c": "PASS"},
                run={"torch": "2.9.1", "vllm": "0.32.0"},
            ),
        ]
        (tmp_path / "page.html").write_text(page(Matrix(cells or usual), musts or {}))
        browser.set_window_size(width, 900)
        browser.get(f"file://{tmp_path}/page.html")
        return browser

    return show


def squares(browser, feature):
    (row,) = [
        row
        for row in browser.find_elements("css selector", "tr[data-row]")
        if row.find_element("css selector", "th").get_attribute("textContent") == feature
    ]
    return row.find_elements("css selector", "td")


def rows(browser):
    """Names of the features that are to be seen."""
    found = browser.find_elements("css selector", "tr[data-row] th")
    return [one.text for one in found if one.is_displayed()]


def told(browser):
    return browser.find_element("id", "told").text


def type_filter(browser, text):
    box = browser.find_element("id", "filter")
    box.clear()
    box.send_keys(text)


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def test_a_click_shows_what_stands_behind_a_square(shown):
    browser = shown(musts={"warm.a": "A pool MUST be warm."})
    assert not browser.find_element("id", "told").is_displayed()
    squares(browser, "warm.a")[0].click()
    for text in (
        "warm.a, torch 2.8.0 (no vLLM)",
        "A pool MUST be warm.",
        "XFAIL torch 2.8.0",
        "no answer",
        "signature: no answer < f",
        "counters: hits 2",
        "expected: TIMEOUT",
    ):
        assert text in told(browser)
    assert browser.find_element("css selector", "#told a").get_attribute("href") == "https://example.org/7"
    assert complaints(browser) == []


def test_keys_alone_will_do(shown):
    browser = shown()
    body = browser.find_element("tag name", "body")
    for _ in range(8):
        body = browser.switch_to.active_element
        if body.tag_name == "td":
            break
        body.send_keys(Keys.TAB)
    where = browser.switch_to.active_element
    assert where.get_attribute("aria-label") == "2.8.0: UNSUPPORTED "
    for key, label in (
        (Keys.ARROW_RIGHT, "2.9.1: PASS "),
        (Keys.ARROW_LEFT, "2.8.0: UNSUPPORTED "),
        (Keys.ARROW_DOWN, "2.8.0: XFAIL "),
        (Keys.ARROW_LEFT, "2.8.0: XFAIL "),
    ):
        browser.switch_to.active_element.send_keys(key)
        assert browser.switch_to.active_element.get_attribute("aria-label") == label
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert "warm.a, torch 2.8.0" in told(browser)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ["quiesce.c", "warm.a", "warm.b"]),
        ("warm", ["warm.a", "warm.b"]),
        ("WARM b", ["warm.b"]),
        ("status:xfail", ["warm.a"]),
        ("status:xfail torch:2.9", []),
        ("group:quiesce", ["quiesce.c"]),
        ("is:different", ["quiesce.c", "warm.a"]),
        ("is:same", []),
        ("nothing", []),
    ],
)
def test_the_filter(shown, text, left):
    browser = shown()
    type_filter(browser, text)
    assert rows(browser) == left
    assert browser.find_element("id", "count").text == f"{len(left)} of 3 features"
    # A group without a row to show is not shown either.
    heads = [one for one in browser.find_elements("css selector", "tr.group") if one.is_displayed()]
    assert len(heads) == len({name.partition(".")[0] for name in left})


def test_columns_of_other_releases_go(shown):
    browser = shown()
    type_filter(browser, "torch:2.9")
    assert [one.is_displayed() for one in squares(browser, "warm.a")] == [False, True, True]
    lanes = browser.find_elements("css selector", "[data-lane]")
    assert [(one.text, one.get_attribute("colspan")) for one in lanes] == [
        ("no vLLM", "1"),
        ("vLLM 0.32.0", "1"),
    ]
    type_filter(browser, "torch:2.8")
    assert [one.is_displayed() for one in lanes] == [True, False]


def test_nothing_of_a_cell_runs(shown, cell):
    evil = Result(
        "warm.a", "FAIL", "FAIL", [EVIL], EVIL, EVIL, EVIL, 1.0, [EVIL], EVIL, [EVIL], {EVIL: 1}, [EVIL]
    )
    browser = shown(
        [cell({"warm.a": evil}, run={"torch": EVIL, "os": EVIL}, source=EVIL)], musts={"warm.a": EVIL}
    )
    squares(browser, "warm.a")[0].click()
    assert "</script>" in told(browser)
    assert browser.execute_script("return window.pwned") is None
    assert not browser.find_elements("css selector", "#told a, img")
    assert complaints(browser) == []


def test_on_a_telephone_only_the_table_scrolls(shown, cell):
    browser = shown([cell(run={"torch": f"2.{minor}.0"}) for minor in range(8, 40)], width=400)
    across, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert across <= window
    assert browser.find_element("id", "filter").is_displayed()
    assert squares(browser, "warm.a")[0].is_displayed()


def test_on_paper_the_whole_table_is_there(shown, cell):
    names = {f"warm.a{number:03}": "PASS" for number in range(120)}
    browser = shown([cell(names)])
    printed = base64.b64decode(browser.print_page())
    assert printed.startswith(b"%PDF")
    # 120 rows do not fit on one sheet: what scrolls on a screen would be cut off there.
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page\r") >= 3
