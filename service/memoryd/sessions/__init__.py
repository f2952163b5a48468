"""What every kind of thing in a session shares: the lock on its row and its counters."""
