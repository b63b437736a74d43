"""What the tests stand on, one noun a file; `tests/conftest.py` makes fixtures of it.

    components   what this machine has, and why it lacks what it lacks
    skips        the skip that names what is missing
    account      a user that commands are run as
    product      where the package under test lies, readable by that user
    leaks        what an engine left behind, found without asking the engine
    engine       a private engine: directories, environment, commands, the end
    bundle       OCI bundles around busybox
    slurm_cluster   a real Slurm on this machine, to compare with
    waiting      a deadline for what other processes do in their own time

Nothing here imports the product: it is judged from the outside.
"""
