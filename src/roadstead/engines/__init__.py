"""Where a job runs.  The local engine is our own controller on this machine."""
