"""Programs that were written for Slurm, unchanged, with real jobs."""
