"""Conversations: their messages in branches, writes within a transaction, windows."""
