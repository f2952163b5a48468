"""Memories in the database: storing, reading, history, deletion, and sessions kept in memory."""
