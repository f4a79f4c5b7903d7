"""A container is given the CPUs and the memory of its control group, not those of its machine.

The files of a control group are given to the inside: a test can make none.
"""

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
