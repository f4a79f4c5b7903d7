"""Runs as Ray jobs: what travels to the cluster, and following, listing and stopping jobs."""
