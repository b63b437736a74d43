"""Kubernetes pods as jobs: containers that start together and share a network (docs/pods.md)."""
