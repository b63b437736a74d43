"""What a user types: parse, send, wait, exit."""
