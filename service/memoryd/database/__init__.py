"""SQLite and PostgreSQL: connections, transactions, schema, and what differs between them."""
