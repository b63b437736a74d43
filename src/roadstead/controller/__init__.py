"""The local engine's controller: one process a user, started by the first command that needs it."""
