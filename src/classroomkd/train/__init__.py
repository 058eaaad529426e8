"""One training: the loop, its step and their components."""
