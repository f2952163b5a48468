"""Agents' frameworks over memoryd: each module is an extra of its name, and needs a server."""
