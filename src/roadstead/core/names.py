"""Names that commands, or agents, need as they start, before what they are about."""

CLUSTER = "local"  # the local engine's
# By this a command with plugins hands over where they are named (plugins/stack.py).
PLUGSTACK = "SLURM_SPANK__PLUGSTACK"
