"""What containers need of a machine, checked for real; see checks.py."""
