"""A container is given the CPUs and the memory of its control group, not those of its machine."""

import os
import subprocess
import sys

import pytest

from raysp import devices
from raysp.cluster import resources

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


def test_without_control_groups_the_machine_counts(tmp_path):
    assert found(tmp_path) == (96, 768)


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


def test_half_a_cpu_is_one_and_three_and_a_half_are_three(write):
    assert devices.num_cpus(system(write, "0::/", {"cpu.max": "50000 100000"})) == 1
    assert devices.num_cpus(system(write, "0::/", {"cpu.max": "350000 100000"})) == 3


def test_the_affinity_mask_binds_too(write, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert devices.num_cpus(system(write, "0::/", {"cpu.max": "400000 100000"})) == 2


def test_amx_is_read_from_the_flags_of_the_processor(write, tmp_path):
    assert not devices.has_amx(tmp_path)
    assert not devices.has_amx(write({"proc/cpuinfo": "flags\t\t: fpu avx512_bf16 amx_int8"}))
    assert devices.has_amx(write({"proc/cpuinfo": "flags\t\t: fpu amx_bf16 amx_tile\nbugs\t\t:"}))


def test_a_local_ray_is_planned_with_what_the_container_has(monkeypatch):
    import raysp
    from raysp.cluster import resources as here

    monkeypatch.setattr(here, "num_cpus", lambda: 4)
    monkeypatch.setattr(here, "memory_bytes", lambda: 16 * GIGABYTE)
    pipeline = raysp.Pipeline(
        raysp.Shards("in"),
        steps=[raysp.Decode(), raysp.Label("model", outputs=[raysp.Transcript()])],
        sink=raysp.Parquet("out"),
    )
    resources = here.local_resources(pipeline)
    assert (resources.machine_cpus, resources.memory) == (4, 16 * GIGABYTE)
    assert resources.cpus == 5  # four for the model, and a place for a reader beside it


@pytest.mark.lengthy
def test_the_highest_memory_of_a_process_is_its_own_and_not_that_of_the_one_that_started_it():
    assert len(b"1" * 300_000_000) < devices.highest_resident_bytes()
    program = "from raysp import devices; print(devices.highest_resident_bytes())"
    started = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 5_000_000 < int(started.stdout) < 100_000_000


def test_the_highest_memory_is_counted_anew_after_a_reset():
    assert len(b"1" * 300_000_000) < devices.highest_memory("cpu")
    before = devices.highest_memory("cpu")
    devices.reset_highest_memory("cpu")
    assert devices.highest_memory("cpu") < before - 250_000_000
    assert len(b"1" * 200_000_000) < devices.highest_memory("cpu")


@pytest.mark.parametrize(("name", "unit"), [("Linux", 1024), ("macOS", 1)])
def test_without_the_files_of_linux_it_is_what_the_system_counts(tmp_path, monkeypatch, name, unit):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(devices, "system", lambda: name)
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert devices.highest_resident_bytes(tmp_path) == pytest.approx(counted * unit, rel=0.1)


def test_nodes_are_asked_for_the_memory_of_their_gpus_and_the_smallest_counts(monkeypatch):
    monkeypatch.setattr(resources, "with_resource", lambda name: [name] * 3)
    monkeypatch.setattr(resources, "ask", lambda nodes, function: [None, 40e9, 80e9])
    assert resources.with_gpu_memory(resources.Resources(cpus=4, gpus=3)).gpu_memory == 40e9
    of_machine = resources.Resources(cpus=4, gpus=1, machine_cpus=4)
    assert resources.with_gpu_memory(of_machine) == of_machine
