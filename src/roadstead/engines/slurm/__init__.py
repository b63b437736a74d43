"""A real Slurm: it allocates, places, accounts and carries bytes and signals; we put an agent in
front of the user's command, which runs that in its container on each node (roadstead.agent)."""
