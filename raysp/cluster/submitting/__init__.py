"""Runs as Ray jobs: packages that are shipped to the cluster, and following, listing and stopping jobs."""
