"""SessionService: table and handlers, parsers, and the messages of records."""
