"""Daemons of containers that a job brings up for itself: rootless Docker, Podman's service
(docs/docker.md)."""
