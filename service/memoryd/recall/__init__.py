"""Relevance of a session's memories to a query. Pure: the same order whatever the database."""
