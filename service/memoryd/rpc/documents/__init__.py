"""DocumentService on the wire."""
