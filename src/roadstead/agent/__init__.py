"""What runs on a node of a Slurm cluster, under slurmstepd, in front of the user's command.

    python3 -IS …/agent/__main__.py VERB …       or the same package in a zipapp

It is the node side of the local engine (plans, containers, records) for one task at a time.
"""
