"""Names that the local engine gives itself; commands need them as they start."""

CLUSTER = "local"
