"""Contact with the machine: the only modules that talk to the kernel."""
