"""A container is given the CPUs and the memory of its control group, not those of its machine.

The files of a control group are given to the inside: a test can make none.
"""

import subprocess
import sys

import pytest

from raysp import devices

MEGABYTE = 2**20
VERSION_1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:cpuset:/\n0::/"


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/", {"cpu.max": "150000 100000", "memory.max": 160 * MEGABYTE}),
        (
            "0::/pod/own",  # the tightest of nested groups binds
            {
                "pod/cpu.max": "800000 100000",
                "pod/memory.max": 160 * MEGABYTE,
                "pod/own/cpu.max": "100000 100000",
                "pod/own/memory.max": "max",
            },
        ),
        (
            "0::/../../kubepods/pod1/own",  # a path from outside of the container
            {"cpu.max": "100000 100000", "memory.max": 160 * MEGABYTE},
        ),
        (
            VERSION_1,
            {
                "cpu,cpuacct/cpu.cfs_quota_us": 100000,
                "cpu,cpuacct/cpu.cfs_period_us": 100000,
                "memory/memory.limit_in_bytes": 160 * MEGABYTE,
            },
        ),
    ],
)
def test_a_container_has_the_limits_of_its_control_group(tmp_path, cgroup, files):
    for path, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{path}": files[path] for path in files}}.items():
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{text}\n")
    assert (devices.num_cpus(tmp_path), devices.memory_bytes(tmp_path) / MEGABYTE) == (1, 160)
    assert devices.num_cpus() >= 1
    assert devices.memory_bytes() > 160 * MEGABYTE


@pytest.mark.lengthy
def test_the_highest_memory_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it():
    assert len(b"1" * 300_000_000) < devices.highest_resident_bytes()
    program = "from raysp import devices; print(devices.highest_resident_bytes())"
    started = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5_000_000 < int(started.stdout) < 100_000_000
