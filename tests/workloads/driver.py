# SPDX-License-Identifier: Apache-2.0
"""Run as a script: a fresh interpreter with a pool of one worker, told what to do over stdin and stdout.

Reads pickled requests and writes a pickled reply to each: ("submit", function, args) -> number of the
job; ("result", number, seconds) -> ("value", it) or ("error", name of its class, its text).
"""

from __future__ import annotations

import os
import pickle
import sys


def main() -> None:
    # What torch prints must not get among the replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    jobs = []
    while True:
        try:
            what, *told = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        if what == "submit":
            jobs.append(pool.submit(told[0], *told[1]))
            reply = len(jobs) - 1
        else:
            try:
                reply = ("value", jobs[told[0]].result(told[1]))
            except Exception as error:
                reply = ("error", type(error).__name__, str(error))
        pickle.dump(reply, replies)
        replies.flush()
    pool.shutdown()


if __name__ == "__main__":
    main()
