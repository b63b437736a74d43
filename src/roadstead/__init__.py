"""Slurm-compatible batch jobs in OCI containers, without root."""

__version__ = "0.1.0"
