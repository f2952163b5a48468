"""The audit: who has changed, exported or erased what, as a chain of lines."""
