"""The queries, on SQLite and PostgreSQL alike."""
