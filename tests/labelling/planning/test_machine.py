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


@pytest.fixture
def write(tmp_path):
    """Write the files of a system by their paths."""

    def write(files: dict[str, str]):
        for path, text in files.items():
            place = tmp_path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text + "\n")
        return tmp_path

    return write


def found(root) -> tuple[int, float]:
    return devices.num_cpus(root), devices.memory_bytes(root) / GIGABYTE


def system(write, cgroup: str, files: dict[str, str]):
    return write({"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{path}": text for path, text in files.items()}})


def test_a_container_of_version_2_has_its_limits(write):
    root = system(write, "0::/", {"cpu.max": "400000 100000", "memory.max": str(16 * GIGABYTE)})
    assert found(root) == (4, 16)


def test_the_tightest_of_nested_groups_binds(write):
    files = {
        "pod/cpu.max": "800000 100000",
        "pod/memory.max": str(8 * GIGABYTE),
        "pod/own/cpu.max": "250000 100000",
        "pod/own/memory.max": "max",
    }
    assert found(system(write, "0::/pod/own", files)) == (2, 8)


def test_a_path_told_from_outside_of_the_container_falls_back_to_its_root(write):
    files = {"cpu.max": "300000 100000", "memory.max": str(6 * GIGABYTE)}
    assert found(system(write, "0::/../../kubepods/pod1/own", files)) == (3, 6)


def test_a_container_of_version_1_has_its_limits(write):
    cgroup = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:cpuset:/\n0::/"
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "600000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(24 * GIGABYTE),
    }
    assert found(system(write, cgroup, files)) == (6, 24)


@pytest.mark.lengthy
def test_the_highest_memory_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it():
    assert len(b"1" * 300_000_000) < devices.highest_resident_bytes()
    program = "from raysp import devices; print(devices.highest_resident_bytes())"
    started = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5_000_000 < int(started.stdout) < 100_000_000
