"""Child processes: what they cost, and that none is left."""

import os
import shlex
import subprocess
import sys
import time

import psutil

from serving.bench import children

BUSY = "import subprocess, sys, time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint('done', flush=True)\n"


def gone(pids: list[int], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_stopping_ends_the_whole_tree_even_what_ignores_sigterm():
    process = children.start(["sh", "-c", "trap '' TERM; sh -c 'trap \"\" TERM; sleep 100' & echo on; wait"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    pids = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    assert len(pids) >= 2
    children.stop(process, patience_s=0.1)
    assert gone(pids)


def test_a_child_dies_with_a_parent_that_was_killed():
    script = (
        "import subprocess, sys, time\nfrom serving.bench import children\n"
        "print(children.start(['sleep', '100']).pid, flush=True)\ntime.sleep(100)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert psutil.pid_exists(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone([child])


def test_cpu_counts_descendants_while_they_run_and_after_they_ended():
    nested = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {BUSY!r}])\ntime.sleep(100)"
    process = children.start([sys.executable, "-c", nested], stdout=subprocess.PIPE)
    assert process.stdout is not None
    before = children.machine_cpu_s()
    process.stdout.readline()
    time.sleep(0.1)
    assert 0.29 < sum(children.cpu_s(process.pid).values()) < 2
    assert children.machine_cpu_s() - before > 0.1
    assert children.pss_bytes(process.pid) > 1 << 20
    assert children.is_ours(process.pid)
    children.stop(process, patience_s=0)


def test_cpu_is_told_apart_by_place_in_the_tree():
    script = f"sleep 100 & {sys.executable} -c {shlex.quote(BUSY + 'time.sleep(100)')}; true"
    process = children.start(["sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    used = children.cpu_s(process.pid)
    children.stop(process, patience_s=0)
    assert {"sh", "sh > sleep"} < set(used) and len(used) == 3
    assert max(used, key=used.__getitem__).startswith("sh > python")


def test_what_is_gone_costs_nothing_and_is_not_ours():
    process = children.start(["true"])
    process.wait()
    assert children.cpu_s(process.pid) == {} and children.pss_bytes(process.pid) == 0
    assert not children.is_ours(process.pid)


def test_what_is_started_on_some_cpus_stays_there_and_we_go_back():
    mine = os.sched_getaffinity(0)
    server, load = children.apart()
    assert set(server) | set(load) == mine and len(load) == 1
    assert server == load or not set(server) & set(load)
    with children.on(load):
        process = children.start(["sleep", "100"])
    assert os.sched_getaffinity(process.pid) == set(load) and os.sched_getaffinity(0) == mine
    children.stop(process, patience_s=1)
