# SPDX-License-Identifier: Apache-2.0
"""Interpreters that start engines, and what is beside them: bounds, what is handed on, what is left. No vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from pytest_compilepool import proctree
from pytest_compilepool.vllm.engines import log, shared, start
from pytest_compilepool.vllm.engines.order import Engine, EngineFailed, Order, Run

# -- what is handed on -------------------------------------------------------------------------------

ROOT, FOLDER = Path("/caches"), Path("/own")
OUTER = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "CXX": "clang++",
    "VLLM_COMPILE_PROCESSES": "7",
    "VLLM_CACHE_ROOT": "/theirs",
    "VLLM_USE_AOT_COMPILE": "0",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "3",
    "TORCHDYNAMO_DISABLE": "1",
    "TORCH_LOGS": "+inductor",
    "TRITON_CACHE_DIR": "/theirs",
    "PYTEST_ADDOPTS": "-x",
    "COMPILEPOOL_VLLM_MODEL": "opt-1.3b",
    "HF_HUB_OFFLINE": "0",
}


def environment(**order):
    return start.environment(Order("model", **order), ROOT, FOLDER, OUTER)


def test_settings_of_whoever_asks_do_not_decide():
    found = environment()
    for name in (
        "VLLM_COMPILE_PROCESSES",
        "VLLM_USE_AOT_COMPILE",
        "TORCHINDUCTOR_COMPILE_THREADS",
        "TORCHDYNAMO_DISABLE",
        "TORCH_LOGS",
        "PYTEST_ADDOPTS",
        "COMPILEPOOL_VLLM_MODEL",
    ):
        assert name not in found
    for name in ("PATH", "HOME", "CXX"):
        assert found[name] == OUTER[name]
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert found["HF_HUB_OFFLINE"] == "1"


def test_caches_lie_below_the_root_and_the_rest_in_its_own_folder():
    found = environment()
    places = ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
    assert [found[name] for name in places] == ["/caches", "/caches/inductor", "/caches/triton"]
    assert found["TMPDIR"] == "/own"
    assert found["VLLM_COMPILE_POOL_EVENTS"] == "/own/events.jsonl"


def test_its_sockets_have_short_paths_wherever_its_folder_lies():
    """A path of 108 characters is too long for one, and folders lie within folders here."""
    found = start.environment(Order("model"), ROOT, Path("/own" * 40), OUTER)
    assert found["VLLM_RPC_BASE_PATH"] == "."


@pytest.mark.parametrize("text", ["2", "0", "lots"])
def test_the_number_of_processes_is_handed_on_as_it_is(text):
    assert environment(processes=text)["VLLM_COMPILE_PROCESSES"] == text


def test_a_variable_of_the_order_has_the_last_word():
    found = environment(
        processes="2",
        environment={
            "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
            "VLLM_CACHE_ROOT": "/elsewhere",
            "VLLM_COMPILE_PROCESSES": None,
            "HOME": None,
            "NEVER_SET": None,
            "TORCH_LOGS": "graph_breaks",
        },
    )
    assert found["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"
    assert found["VLLM_CACHE_ROOT"] == "/elsewhere"
    assert found["TORCH_LOGS"] == "graph_breaks"
    assert not {"VLLM_COMPILE_PROCESSES", "HOME", "NEVER_SET"} & set(found)


def test_without_the_plugin_nothing_of_ours_is_in_it():
    assert environment()["VLLM_PLUGINS"] == "compilepool"
    found = environment(plugin=False)
    assert found["VLLM_PLUGINS"] == ""
    assert not [name for name in found if name.startswith(("VLLM_COMPILE_", "COMPILEPOOL_"))]


def test_nothing_of_whoever_asks_is_changed():
    before = dict(OUTER)
    environment(environment={"PATH": None, "HOME": "/another"})
    assert before == OUTER


# -- how an interpreter ends -------------------------------------------------------------------------


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Have an interpreter do this instead of starting an engine. `folder` is its own, `here` the test's."""
    head = f"import os, signal, subprocess, sys, time; folder = sys.argv[1]; here = {str(tmp_path)!r}\n"
    answers = "def answer(text):\n    open(os.path.join(folder, 'answer.json'), 'w').write(text)\n"
    sleeper = (
        "def sleeper(seconds, **named):\n"
        "    one = subprocess.Popen([sys.executable, '-c', f'import time; time.sleep({seconds})'], **named)\n"
        "    open(os.path.join(here, 'pids'), 'a').write(f'{one.pid} ')\n"
    )

    def set_up(text):
        monkeypatch.setattr(start, "_BOOT", head + answers + sleeper + text)
        monkeypatch.setattr(start, "SPARE", 0.0)

    return set_up


@pytest.fixture
def run(tmp_path):
    """Do it, with this limit in seconds."""
    return lambda limit=30.0, **named: start.run(Order("model", limit=limit), tmp_path / "root", **named)


def gone(tmp_path: Path) -> bool:
    """Whether all that the program has started has ended; there was something."""
    pids = [int(text) for text in (tmp_path / "pids").read_text().split()]
    assert pids
    return not [pid for pid in pids if (row := proctree.lookup(pid)) is not None and not row.dead]


def test_an_answer_is_what_it_is(program, run):
    program(
        "import json; print('said', end='')\nanswer(json.dumps({'pid': 7, 'engines': [{'blocks': 5}], 'new': 1}))"
    )
    found = run()
    assert asdict(found) == asdict(Run(pid=7, engines=[Engine(blocks=5)], status=0, log="said"))
    assert found.engine.blocks == 5


def test_one_that_hangs_is_ended_with_all_that_it_has_started(program, run, tmp_path):
    program("sleeper(99)\nsleeper(99, start_new_session=True)\nprint('begun', flush=True)\ntime.sleep(99)")
    began = time.monotonic()
    found = run(limit=0.5)
    assert 0.5 <= time.monotonic() - began < 8
    assert found.status is None
    assert "was still at it when its time was over" in found.error
    assert "begun" in found.error
    assert gone(tmp_path)


def test_one_that_does_not_hear_sigterm_is_ended_too(program, run):
    program("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(os.getpid(), flush=True)\ntime.sleep(99)")
    found = run(limit=0.5)
    assert found.status is None
    assert proctree.lookup(int(found.log)) is None


def test_nobody_wants_to_know_any_more(program, run, tmp_path):
    program("sleeper(99)\ntime.sleep(99)")
    stop = threading.Event()
    threading.Timer(0.7, stop.set).start()
    began = time.monotonic()
    assert run(limit=90.0, stop=stop).status is None
    assert time.monotonic() - began < 8
    assert gone(tmp_path)


def test_one_that_is_killed_says_so_and_leaves_nothing(program, run, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "EXIT_SECONDS", 0.2)
    program("sleeper(99)\nprint('so far', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)")
    found = run()
    assert found.status == -9
    assert "ended with status -9 and gave no answer" in found.error
    assert "so far" in found.error
    assert found.engines == []
    assert [line for line in found.survivors if "time.sleep(99)" in line] == found.survivors != []
    assert gone(tmp_path)


@pytest.mark.parametrize("text", ["", "{", '{"pid": 7', "no JSON", "\ud800"])
def test_an_answer_that_cannot_be_read_is_none(program, run, text):
    program(
        f"open(os.path.join(folder, 'answer.json'), 'wb').write({text.encode('utf-8', 'surrogatepass')!r})"
    )
    found = run()
    assert (found.status, found.pid, found.engines) == (0, 0, [])
    assert "ended with status 0 and gave no answer" in found.error
    with pytest.raises(EngineFailed, match="gave no answer"):
        _ = found.engine


def test_what_is_still_there_is_named_and_then_ended(program, run, tmp_path, monkeypatch):
    monkeypatch.setattr(start, "EXIT_SECONDS", 0.2)
    # By the mark in its environment: it is in a session of its own, and nobody's child.
    program("sleeper(99, start_new_session=True)\nanswer('{}')")
    found = run()
    assert found.error == ""
    assert found.survivors == [f"{sys.executable} -c import time; time.sleep(99)"]
    assert gone(tmp_path)


PORT_TAKEN = "DistNetworkError: port: 35357, name: EADDRINUSE"


@pytest.mark.parametrize(("fails", "starts"), [(0, 1), (1, 2), (2, 3), (99, 3)])
def test_a_start_whose_port_was_taken_is_made_again(program, run, tmp_path, fails, starts):
    program(
        "with open(here + '/starts', 'a') as file: file.write('x')\n"
        "import json; many = os.path.getsize(here + '/starts')\n"
        f"answer(json.dumps({{'error': {PORT_TAKEN!r} if many <= {fails} else ''}}))"
    )
    assert bool(run().error) == (fails >= starts)
    assert (tmp_path / "starts").stat().st_size == starts


@pytest.mark.parametrize(
    "told", [{"error": "RuntimeError: no memory"}, {"error": PORT_TAKEN, "engines": [{}]}]
)
def test_any_other_failure_is_what_it_is(program, run, tmp_path, told):
    """One that comes after an engine, too: the caches are no longer as they were."""
    program(
        "with open(here + '/starts', 'a') as file: file.write('x')\n"
        f"import json; answer(json.dumps({told!r}))"
    )
    assert run().error == told["error"]
    assert (tmp_path / "starts").stat().st_size == 1


@pytest.mark.skipif(not shared.MEMORY.is_dir(), reason="no /dev/shm here")
def test_shared_memory_that_it_leaves_is_named_and_removed(program, run):
    name = f"compilepool-test-{os.getpid()}"
    program(
        "sys.path[:] = __import__('json').load(open(folder + '/order.json'))['path']\n"
        "import mmap, pathlib; from pytest_compilepool.vllm.engines import shared\n"
        f"file = open('/dev/shm/{name}', 'w+b'); file.truncate(4096); memory = mmap.mmap(file.fileno(), 4096)\n"
        "shared.note(pathlib.Path(folder)); answer('{}'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    try:
        assert run().shared == [name]
        assert not (shared.MEMORY / name).exists()
    finally:
        (shared.MEMORY / name).unlink(missing_ok=True)


def test_what_ends_by_itself_soon_is_no_survivor(program, run, tmp_path):
    program("sleeper(0.4, start_new_session=True)\nanswer('{}')")
    assert run().survivors == []
    assert gone(tmp_path)


def test_its_folder_is_removed_and_its_caches_stay(program, run, tmp_path):
    program("open(os.path.join(os.environ['TMPDIR'], 'made'), 'w')\nprint(os.getcwd())\nanswer('{}')")
    found = run(modelinfos=tmp_path / "infos")
    assert not Path(found.log.strip()).exists()
    assert (tmp_path / "root" / "modelinfos").resolve() == (tmp_path / "infos").resolve()
    # A second one over the same caches, and one that shares nothing.
    assert run(modelinfos=tmp_path / "infos").error == ""
    start.remove(tmp_path / "root")
    start.remove(tmp_path / "root")
    assert run().error == ""
    assert not (tmp_path / "root" / "modelinfos").exists()
    assert (tmp_path / "infos").is_dir()


def test_caches_that_cannot_be_made_are_left_to_vllm(program, tmp_path):
    (tmp_path / "file").touch()
    program("print(os.environ['VLLM_CACHE_ROOT'], end='')\nanswer('{}')")
    root = tmp_path / "file" / "root"
    found = start.run(Order("model"), root, modelinfos=tmp_path / "infos")
    assert (found.error, found.log) == ("", str(root))


def test_events_and_warnings_are_read_whatever_it_answers(program, run):
    told = {"what": "warm", "at": 2.0, "pid": 7, "state": "starting", "took": 0.5, "detail": {"sidecar": 9}}
    lines = [json.dumps(told), json.dumps({**told, "what": "off", "at": 1.0}), '{"what": "torn', "{}"]
    program(
        f"open(os.environ['VLLM_COMPILE_POOL_EVENTS'], 'w').write({chr(10).join(lines)!r})\n"
        "print('WARNING 11-29 [x.py:1] the compile pool is given up')\n"
        "print('no level: compile pool')\n"
        "print('(pid=1) INFO 11-29 [x.py:1] compile pool: 2 processes')\n"
        "print('WARNING 11-29 of something else')\n"
        "print('\\x1b[31mred\\x1b[0m')"
    )
    found = run()
    assert [event["what"] for event in found.events] == ["off", "warm"]
    assert found.events[1] == told
    assert found.warnings == ["WARNING 11-29 [x.py:1] the compile pool is given up", "no level: compile pool"]
    assert found.log.splitlines()[-1] == "red"


def test_of_a_long_log_the_end_is_kept(program, run):
    program("print('first compile pool')\nprint('x' * 20000)\nprint('last')\nanswer('{}')")
    found = run()
    assert len(found.log) == 6000
    assert found.log.endswith("x\nlast\n")
    assert found.warnings == ["first compile pool"]


# -- the real one, over a vLLM that is none ----------------------------------------------------------


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages by name and text that an interpreter finds before all others. torch is empty: no time goes there."""

    def made(**texts):
        for name, text in {"torch": "", **texts}.items():
            (tmp_path / "packages" / name).mkdir(parents=True)
            (tmp_path / "packages" / name / "__init__.py").write_text(text)
        monkeypatch.setattr(sys, "path", [str(tmp_path / "packages"), *sys.path])

    return made


def test_one_that_hangs_tells_where_it_stood(packages, run):
    packages(vllm="import time\ndef hanging():\n    time.sleep(99)\nhanging()\n")
    began = time.monotonic()
    found = run(limit=1.5)
    assert time.monotonic() - began < 10
    # It has ended itself, within the limit, and not been ended.
    assert found.status == 1
    assert "in hanging" in found.error
    assert "in _prepare" in found.error


def test_what_vllm_raises_is_told(packages, run):
    packages(vllm="raise ImportError('libcuda.so.1 is not there')\n")
    found = run()
    assert found.error == "ImportError: libcuda.so.1 is not there"
    assert found.status == 0
    assert "Traceback" in found.log
    assert found.census["children"] == []
    with pytest.raises(EngineFailed, match="libcuda"):
        _ = found.engine


def test_one_whose_parent_is_another_ends_at_once(packages, tmp_path):
    packages(vllm="")
    (tmp_path / "order.json").write_text(json.dumps({"model": "", "path": sys.path}))
    command = [sys.executable, "-c", start._BOOT, str(tmp_path), str(os.getppid())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 1
    assert not (tmp_path / "answer.json").exists()


# -- what vLLM's log says ----------------------------------------------------------------------------

LOG = """
INFO [default_loader.py:501] Loading weights took 0.25 seconds
INFO [backends.py:1166] [backbone] Dynamo bytecode transform time: 0.84 s
INFO [backends.py:398] Compiling a graph for compile range (1, 128) takes 16.52 s
INFO [backends.py:398] Compiling a graph for compile range (129, 2048) takes 1.5 s
INFO [monitor.py:62] [backbone] torch.compile took 17.70 s in total
INFO [monitor.py:91] [backbone] Initial profiling/warmup run took 0.01 s
INFO [gpu_model_runner.py:5] Graph capturing finished in 3 secs, took 0.12 GiB
INFO [core.py:395] init engine (profile, create kv cache, warmup model) took 19.26 s (compilation: 17.70 s)
"""


def test_seconds_by_name():
    assert log.seconds(LOG) == {
        "load_weights": 0.25,
        "dynamo": 0.84,
        "graph_compile": 18.02,
        "torch_compile": 17.7,
        "capture": 3.0,
        "init_engine": 19.26,
    }


def test_another_release_says_takes():
    assert log.seconds("[monitor.py:34] torch.compile takes 4.5 s in total") == {"torch_compile": 4.5}


@pytest.mark.parametrize(
    "text", ["", "took 3 s", "Dynamo bytecode transform time: - s", "torch.compile took"]
)
def test_what_is_not_said_has_no_name(text):
    assert log.seconds(text) == {}
