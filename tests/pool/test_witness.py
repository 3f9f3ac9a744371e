# SPDX-License-Identifier: Apache-2.0
"""Who did which job, as the workers themselves write it down."""

from __future__ import annotations

import os
import time

import pytest

from pytest_compilepool.pool.witness import Ledger, Witnessed
from pytest_compilepool.workloads import jobs


def test_every_job_names_its_worker_and_its_times(own_pool):
    began = time.monotonic()
    pids = [own_pool.submit(jobs.whoami).result(30)[0] for _ in range(5)]
    records = own_pool.job_records
    assert [record.number for record in records] == [1, 2, 3, 4, 5]
    assert [record.worker for record in records] == pids
    for record in records:
        assert record.function == "whoami"
        assert began <= record.submitted <= record.began <= record.ended <= time.monotonic()
        assert (record.outcome, record.error) == ("done", "")


def test_a_job_that_runs_has_begun_and_not_ended(own_pool, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    future = own_pool.submit(jobs.touch_and_wait_for, str(started), str(go), 30)
    jobs.wait_for(str(started), 30)
    (record,) = own_pool.job_records
    assert record.worker == int(started.read_text())
    assert (record.ended, record.outcome) == (None, "pending")
    go.touch()
    future.result(30)
    (record,) = own_pool.job_records
    assert record.outcome == "done"
    assert record.ended > record.began


def test_a_job_that_fails_or_takes_its_worker_along_still_says_where(own_pool):
    own_pool.submit(jobs.add, 1, 2).result(30)
    with pytest.raises(Exception, match="planted"):
        own_pool.submit(jobs.fail, "planted").result(30)
    before = {key.pid for key in own_pool.workers}
    with pytest.raises(Exception):  # noqa: B017 - torch's, and another one in each release
        own_pool.submit(jobs.exit_process, 3).result(30)
    _, failed, died = own_pool.job_records
    assert "planted" in failed.error
    assert failed.ended is not None
    assert died.outcome == "failed"
    assert died.worker in before
    assert died.ended is None


def test_what_a_job_returns_or_raises_is_torchs_affair(own_pool):
    """An exception that is returned is raised by torch; nothing of ours is in between."""
    with pytest.raises(ValueError, match="returned"):
        own_pool.submit(jobs.echo, ValueError("returned")).result(30)
    with pytest.raises(Exception, match=r"(?i)pickle"):
        own_pool.submit(lambda: 1)
    assert own_pool.jobs.failed == 2


@pytest.mark.usefixtures("needs_quiesce")
def test_records_begin_anew_with_a_lease(own_pool):
    own_pool.submit(jobs.add, 1, 2).result(30)
    own_pool.park()
    own_pool.lease()
    assert own_pool.job_records == []
    own_pool.submit(jobs.add, 1, 2).result(30)
    (record,) = own_pool.job_records
    assert record.worker in {key.pid for key in own_pool.workers}


def test_the_records_stay_and_the_descriptor_goes(own_pool):
    own_pool.submit(jobs.whoami).result(30)
    held = own_pool._jobs.fds
    assert held <= own_pool.owned_fds
    assert len(held) == 1
    own_pool.shutdown()
    assert own_pool._jobs.fds == set()
    for fd in held:
        with pytest.raises(OSError):
            os.fstat(fd)
    assert own_pool.job_records[0].worker is not None


# -- the ledger by itself ------------------------------------------------------------------------------------


@pytest.fixture(params=["in memory", "in a file"])
def ledger(request, monkeypatch):
    if request.param == "in a file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    made = Ledger()
    yield made
    made.close()
    made.close()


def test_it_is_written_by_path_and_read_by_number(ledger):
    assert Witnessed(jobs.add, ledger.path, 7)(1, 2) == 3
    with pytest.raises(ValueError, match="planted"):
        Witnessed(jobs.fail, ledger.path, 9)("planted")
    assert sorted(ledger.entries()) == [7, 9]
    for entry in ledger.entries().values():
        assert entry.worker == os.getpid()
        assert entry.ended >= entry.began


def test_a_job_that_is_taken_up_again_belongs_to_the_second(ledger):
    job = Witnessed(jobs.add, ledger.path, 1)
    job(1, 2)
    first = ledger.entries()[1].began
    job._write(0)
    entry = ledger.entries()[1]
    assert entry.began > first
    assert entry.ended is None


def test_a_line_that_is_cut_off_is_left_for_later(ledger):
    with open(ledger.path, "ab") as file:
        file.write(b"half")
    assert ledger.entries() == {}


def test_a_ledger_that_is_gone_does_not_hurt_the_job(ledger):
    path = ledger.path
    ledger.close()
    assert Witnessed(jobs.add, path, 1)(1, 2) == 3
    assert ledger.fds == set()
    assert path.startswith("/proc") or not os.path.exists(path)


def test_only_this_user_can_read_it(ledger):
    assert os.stat(ledger.path).st_uid == os.getuid()
    if not ledger.path.startswith("/proc"):
        assert os.stat(ledger.path).st_mode & 0o077 == 0
