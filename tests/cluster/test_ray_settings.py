"""The settings of the Ray that raysp starts, as its workers have them."""

import os

from tests.kubernetes.manifests import RAY_SETTINGS


def test_workers_have_the_settings_that_nodes_of_a_cluster_are_given(local_ray):
    import ray

    @ray.remote(num_cpus=0)
    def environment() -> dict[str, str]:
        return dict(os.environ)

    found = ray.get(environment.remote())
    assert {name: found.get(name) for name in RAY_SETTINGS} == RAY_SETTINGS
