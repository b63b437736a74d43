"""Slurm-compatible batch jobs in OCI containers, without root."""

__version__ = "0.1.0"

# The release whose words, shapes and numbers the commands keep to, and say that they are.
SLURM_VERSION = "22.05.8"
