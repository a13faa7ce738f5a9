"""How many CPUs this process may really use: the cgroup's quota and the affinity mask, not the node's cores."""

import os
from pathlib import Path


def cpu_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs that this process may use, at least 0.1: the smaller of its affinity mask and its cgroup quota (v2 or v1).

    Source: kernel documentation, cgroup-v2 `cpu.max` and the v1 CFS bandwidth files.
    """
    return max(0.1, min(float(len(os.sched_getaffinity(0))), _quota(cgroup)))


def _quota(cgroup: Path) -> float:
    v1 = cgroup / "cpu"
    for files in ((cgroup / "cpu.max",), (v1 / "cpu.cfs_quota_us", v1 / "cpu.cfs_period_us")):
        try:
            quota, period = " ".join(file.read_text() for file in files).split()
            return float("inf") if quota in ("max", "-1") else int(quota) / int(period)
        except (OSError, ValueError):  # it is the other version, or there is no limit to read
            continue
    return float("inf")
