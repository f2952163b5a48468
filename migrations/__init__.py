"""The migrations of the database's schema; installed as `memoryd.migrations`."""
