"""Documents: exact bytes under a namespace and a key of a session."""
