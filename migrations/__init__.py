"""The database's schema, step by step; installed as `memoryd.migrations`."""
