"""A container is given the CPUs and the memory of its control group, not those of its machine."""

import os
import subprocess
import sys

import pytest

from raysp import devices

GIGABYTE = 2**30


@pytest.fixture(autouse=True)
def large_machine(monkeypatch):
    """96 CPUs and 768 GB, as a container sees them."""
    pages = {"SC_PHYS_PAGES": 768 * GIGABYTE // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(96)))
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)


VERSION_1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:cpuset:/\n0::/"


@pytest.mark.parametrize(
    ("cgroup", "files", "cpus", "gigabytes"),
    [
        ("0::/", {"cpu.max": "400000 100000", "memory.max": 16 * GIGABYTE}, 4, 16),
        (
            "0::/pod/own",  # the tightest of nested groups binds
            {
                "pod/cpu.max": "800000 100000",
                "pod/memory.max": 8 * GIGABYTE,
                "pod/own/cpu.max": "250000 100000",
                "pod/own/memory.max": "max",
            },
            2,
            8,
        ),
        (
            "0::/../../kubepods/pod1/own",  # a path from outside of the container
            {"cpu.max": "300000 100000", "memory.max": 6 * GIGABYTE},
            3,
            6,
        ),
        (
            VERSION_1,
            {
                "cpu,cpuacct/cpu.cfs_quota_us": 600000,
                "cpu,cpuacct/cpu.cfs_period_us": 100000,
                "memory/memory.limit_in_bytes": 24 * GIGABYTE,
            },
            6,
            24,
        ),
    ],
)
def test_a_container_has_the_limits_of_its_control_group(tmp_path, cgroup, files, cpus, gigabytes):
    for path, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{path}": files[path] for path in files}}.items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")
    assert (devices.num_cpus(tmp_path), devices.memory_bytes(tmp_path) / GIGABYTE) == (cpus, gigabytes)


@pytest.mark.lengthy
def test_the_highest_memory_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it():
    assert len(b"1" * 300_000_000) < devices.highest_resident_bytes()
    program = "from raysp import devices; print(devices.highest_resident_bytes())"
    started = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5_000_000 < int(started.stdout) < 100_000_000
