"""The node side: one supervisor a step, from its start to the record of its end."""
