# SPDX-License-Identifier: Apache-2.0
"""The life of a pool as a picture: a session is recorded, its record kept as JSON, and drawn as SVG.

    python docs/images/timeline.py record    # runs a session with a pool (10 s; needs torch and Triton, no GPU)
    python docs/images/timeline.py           # draws timeline.svg from timeline.json, needs nothing

Time goes down, so that the picture is narrow enough for a phone. All times in the record are seconds since
`warm()` was called.
"""

from __future__ import annotations

import json
import os
import platform
import select
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD, PICTURE = HERE / "timeline.json", HERE / "timeline.svg"

# -- a session is recorded -----------------------------------------------------------------------------


class Ends:
    """When processes end: a thread waits on their pidfds."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}
        self._threads: list[threading.Thread] = []

    def watch(self, pids: Iterable[int]) -> None:
        for pid in pids:
            thread = threading.Thread(target=self._wait, args=(pid, os.pidfd_open(pid)), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _wait(self, pid: int, descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        self.at[pid] = time.monotonic()
        os.close(descriptor)

    def all(self) -> dict[int, float]:
        """Waits for the last of them, at most ten seconds each."""
        for thread in self._threads:
            thread.join(10)
        return self.at


def record() -> dict[str, Any]:
    """One session: warm, ready, ten kernels, quiesced for half a second, awake, five kernels, shut down."""
    from pytest_compilepool.pool.facade import CompilePool
    from pytest_compilepool.workloads.triton_kernels import KERNELS, compile_kernel

    ends, seen = Ends(), []
    with tempfile.TemporaryDirectory() as caches:
        os.environ["TRITON_CACHE_DIR"] = caches  # empty: every job compiles
        pool = CompilePool(2)
        pool.warm()
        ends.watch([pool.sidecar.pid])
        sidecar = pool.sidecar
        pool.wait_ready()
        for targets in ((80, 90), (89,)):
            workers = pool.workers
            ends.watch(worker.pid for worker in workers)
            seen += workers
            jobs = [pool.submit(compile_kernel, name, ("cuda", cc, 32)) for cc in targets for name in KERNELS]
            for job in jobs:
                job.result(timeout=60)
            if len(targets) > 1:
                pool.quiesce()
                time.sleep(0.5)  # so that it can be seen that nothing happens
                pool.wakeup()
        pool.shutdown()
    return _told(pool, sidecar, seen, ends.all())


def _told(pool: Any, sidecar: Any, workers: list[Any], ended: dict[int, float]) -> dict[str, Any]:
    """As plain values. A process's start is told by the kernel, in hundredths of a second since boot."""
    zero = pool.timeline[0].at
    boot = time.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME) - zero

    def since(at: float | None) -> float | None:
        return None if at is None else round(at - zero, 4)

    def life(key: Any) -> dict[str, Any]:
        return {"pid": key.pid, "started": round(key.started + boot, 4), "ended": since(ended[key.pid])}

    return {
        "made by": "python docs/images/timeline.py record",
        "machine": _machine(),
        "parent": os.getpid(),
        "sidecar": life(sidecar),
        "workers": [life(key) for key in workers],
        "events": [
            {"at": since(event.at), "what": event.what, "took": event.took and round(event.took, 4)}
            for event in pool.timeline
        ],
        "jobs": [
            {
                "number": job.number,
                "function": job.function,
                "worker": job.worker,
                "submitted": since(job.submitted),
                "began": since(job.began),
                "ended": since(job.ended),
                "outcome": job.outcome,
            }
            for job in pool.job_records
        ],
    }


def _machine() -> str:
    from importlib.metadata import version

    cpus = len(os.sched_getaffinity(0))
    return f"{cpus} CPUs, Python {platform.python_version()}, torch {version('torch')}, triton {version('triton')}"


# -- and drawn ------------------------------------------------------------------------------------------

WIDTH, TOP, MARGIN = 440, 74, 24
LANES = {"parent": 150, "sidecar": 224, "workers": 270}  # middle of each lane; workers' from there on
BETWEEN = 42  # two workers
TALL = 760  # from the first moment to the last
LINE = 15  # height of a line of text

STYLE = """
    text { font: 12px system-ui, sans-serif; fill: var(--ink) }
    .head { font-weight: 600 } .small { font-size: 11px; fill: var(--faint) }
    .ground { fill: var(--ground) } .mark { stroke: var(--faint); stroke-dasharray: 2 3 }
    .axis { stroke: var(--faint) } .parent { fill: var(--parent) } .sidecar { fill: var(--sidecar) }
    .worker { fill: var(--worker) } .job { fill: var(--job) }
    .middle { text-anchor: middle } .end { text-anchor: end }
    svg { --ground: #ffffff; --ink: #1f2328; --faint: #59636e;
          --parent: #8c959f; --sidecar: #bc8c00; --worker: #9ec5fe; --job: #0b5ed7 }
    @media (prefers-color-scheme: dark) {
      svg { --ground: #161b22; --ink: #e6edf3; --faint: #9198a1;
            --parent: #6e7681; --sidecar: #d29922; --worker: #264d80; --job: #58a6ff }
    }"""

LEGEND = "Workers: dark while a job runs, light while they wait."
SAID = {
    "warm": "warm() returns",
    "ready": "ready",
    "quiesce": "quiesced",
    "wakeup": "awake again",
    "shutdown": "shut down",
}


def draw(told: dict[str, Any]) -> str:
    """The picture of a record, the same text for the same record."""
    last = max(event["at"] + (event["took"] or 0) for event in told["events"])
    height = TOP + TALL + 3 * MARGIN
    down = Scale(last)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title">',
            f'  <title id="title">The life of a compile pool: {told["machine"]}</title>',
            f"  <style>{STYLE}\n  </style>",
            f'  <rect class="ground" width="{WIDTH}" height="{height}" rx="8"/>',
            *(
                f"  {line}"
                for line in [*_axis(down), *_lanes(told, down), *_jobs(told, down), *_marks(told, down)]
            ),
            "  " + _text(52, height - 12, LEGEND, "small"),
            "</svg>\n",
        ]
    )


class Scale:
    """Where a moment is on the picture. last: the last one, seconds."""

    def __init__(self, last: float) -> None:
        self.last = last

    def __call__(self, at: float) -> float:
        return TOP + at / self.last * TALL

    def ticks(self) -> range:
        step = next(step for step in (1, 2, 5, 10, 20, 50) if self.last / step < 8)
        return range(0, int(self.last) + 1, step)

    def bar(
        self, kind: str, middle: int, wide: int, began: float, ended: float, said: str, gap: float = 0
    ) -> str:
        y, high = self(began), max(1.5, self(ended) - self(began) - gap)
        return (
            f'<rect class="{kind}" x="{middle - wide / 2:g}" y="{y:.1f}" width="{wide}" height="{high:.1f}">'
            f"<title>{said}</title></rect>"
        )


def _text(x: int, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y:.1f}"' + (f' class="{kind}"' if kind else "") + f">{words}</text>"


def _axis(down: Scale) -> Iterator[str]:
    for second in down.ticks():
        y = down(second)
        yield _text(34, y + 4, f"{second} s", "small end")
        yield f'<line class="axis" x1="38" x2="44" y1="{y:.1f}" y2="{y:.1f}"/>'
    yield f'<line class="axis" x1="44" x2="44" y1="{TOP}" y2="{TOP + TALL}"/>'


def _lanes(told: dict[str, Any], down: Scale) -> Iterator[str]:
    """The processes, each from its start to its end; the parent was there before and is there after."""
    columns = {"parent": told["parent"], "sidecar": told["sidecar"]["pid"]}
    for name, pid in columns.items():
        yield _text(LANES[name], 26, name, "head middle")
        yield _text(LANES[name], 42, str(pid), "small middle")
    workers = told["workers"]
    yield _text(LANES["workers"] + BETWEEN * (len(workers) - 1) // 2, 26, "workers", "head middle")
    yield down.bar("parent", LANES["parent"], 6, 0, down.last, f"parent, pid {told['parent']}")
    lives = [("sidecar", LANES["sidecar"], told["sidecar"])]
    for at, worker in enumerate(workers):
        yield _text(_lane(at), 42, str(worker["pid"]), "small middle")
        lives.append(("worker", _lane(at), worker))
    for kind, middle, life in lives:
        said = f"{kind}, pid {life['pid']}: {life['started']:.2f} to {life['ended']:.2f} s"
        yield down.bar(kind, middle, 10 if kind == "sidecar" else 16, life["started"], life["ended"], said)


def _lane(number: int) -> int:
    return LANES["workers"] + BETWEEN * number


def _jobs(told: dict[str, Any], down: Scale) -> Iterator[str]:
    lanes = {worker["pid"]: _lane(at) for at, worker in enumerate(told["workers"])}
    for job in told["jobs"]:
        said = f"job {job['number']}: {job['began']:.2f} to {job['ended']:.2f} s"
        yield down.bar("job", lanes[job["worker"]], 12, job["began"], job["ended"], said, gap=1)


def _marks(told: dict[str, Any], down: Scale) -> Iterator[str]:
    """A line across all lanes where something was reached, and what it was, at the left; jobs where they were sent."""
    right = _lane(len(told["workers"]) - 1) + 20
    free = 0.0
    sent, busy_until = [], 0.0
    for job in told["jobs"]:
        if job["submitted"] > busy_until:
            sent.append(job["submitted"])
        busy_until = max(busy_until, job["ended"])
    marks = [(event["at"] + event["took"], SAID[event["what"]], event["took"]) for event in told["events"]]
    for at, words, took in sorted([*marks, *((first, "jobs are sent", None) for first in sent)]):
        y = max(down(at), free)
        free = y + LINE * (2 if took is None else 2.1)
        yield f'<line class="mark" x1="44" x2="{right}" y1="{down(at):.1f}" y2="{down(at):.1f}"/>'
        yield _text(52, y + LINE - 2, words)
        if took is not None:
            yield _text(52, y + 2 * LINE - 4, f"after {_long(took)}", "small")


def _long(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.5 else f"{seconds * 1000:.0f} ms"


def main(asked: list[str]) -> None:
    if asked == ["record"]:
        RECORD.write_text(json.dumps(record(), indent=1) + "\n")
    elif asked:
        sys.exit(f"{asked[0]}: known is `record`; without it the record that is there is drawn")
    PICTURE.write_text(draw(json.loads(RECORD.read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
