# SPDX-License-Identifier: Apache-2.0
"""How long the matrix of many cells takes: python benchmarks/matrix.py [--cells 2000] [--features 200] [--browser]

The cells are made up, in the proportions of real ones: 11 releases of torch, 8 of vLLM and none, machines with and without
a GPU; three of four features kept, the others with reasons, signatures and bugs as long as those of real failures.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_compilepool.matrix.cell import Cell, Result
from pytest_compilepool.matrix.signature import signature

TORCH = [f"2.{minor}.{micro}" for minor in range(8, 16) for micro in (0, 1)][:11]
VLLM = [None, *(f"0.{minor}.0" for minor in range(17, 33, 2))]
STATUSES = ["PASS"] * 15 + ["XFAIL", "FAIL", "TIMEOUT", "UNSUPPORTED", "SKIP"]
STACK = "\n".join(
    f'  File "/usr/lib/torch/_inductor/file{number}.py", line {number} in f' for number in range(20)
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--keep", metavar="FOLDER")
    parser.add_argument(
        "--browser", action="store_true", help="and the page in Chromium; needs selenium and chromedriver"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(asked.keep or name)
        folder.mkdir(exist_ok=True)
        write(folder / "cells", asked.cells, asked.features)
        for what in (
            ["--html", str(folder / "matrix.html")],
            ["--markdown"],
            ["--support-json", str(folder / "s.json")],
        ):
            command = [sys.executable, "-m", "pytest_compilepool.cli", "matrix", str(folder / "cells"), *what]
            took = sorted(timed(command) for _ in range(3))
            print(f"{what[0]:<16} {took[1]:.1f} s (median of 3: {', '.join(f'{one:.1f}' for one in took)})")
        size = (folder / "matrix.html").stat().st_size
        print(f"the page: {size / 1e6:.1f} MB")
        if asked.browser:
            in_browser(folder / "matrix.html")


# Until what it changes has been drawn: the second frame begins when the first is on the screen.
DRAWN = """
const [what, done] = arguments, began = performance.now();
if (what === "click") document.querySelector("td[data-status=FAIL]").click();
else { const field = document.getElementById("filter"); field.value = what; field.dispatchEvent(new Event("input")); }
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
"""


def in_browser(file: Path) -> None:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        began = time.monotonic()
        browser.get(file.absolute().as_uri())
        print(f"in Chromium, shown after {time.monotonic() - began:.1f} s")
        for what in ("click", "group3", "group3 status:fail", ""):
            took = sorted(browser.execute_async_script(DRAWN, what) for _ in range(5))
            print(f"  {what or 'no filter':<20} {took[2]:.0f} ms (median of 5)")
    finally:
        browser.quit()


def timed(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def write(folder: Path, cells: int, features: int) -> None:
    folder.mkdir(exist_ok=True)
    chance = random.Random(7)
    for number in range(cells):
        torch, vllm = TORCH[number % len(TORCH)], VLLM[number // len(TORCH) % len(VLLM)]
        run = {
            "pool": "torch's compile pool",
            "torch": torch,
            "triton": "3.7.1",
            "python": "3.12.3",
            "cpus": 2,
        }
        run |= {
            "host": f"h{number}",
            "started": f"2026-11-{1 + number % 28:02}",
            "plugins": {"xdist": "3.8.0"},
        }
        run |= {"vllm": vllm} if vllm else {}
        run |= {"gpu": f"GPU {number}"} if number % 2 else {}
        results = {}
        for feature in range(features):
            status = chance.choice(STATUSES)
            reason = (
                ""
                if status == "PASS"
                else f"the pool of {feature} did not answer within 10.{number % 90} s\n{STACK}"
            )
            name = f"group{feature // 12}.feature-{feature}"
            got = "" if status in ("UNSUPPORTED", "SKIP") else "FAIL" if status == "XFAIL" else status
            results[name] = Result(
                name,
                status,
                got,
                reason=reason,
                signature=signature(reason),
                duration=1.5,
                bug="https://example.org/1",
            )
        cell = Cell("0.1", run, "standard", True, results, timings={"ready": 3.0})
        (folder / f"{number}.json").write_text(cell.to_text())


if __name__ == "__main__":
    main()
