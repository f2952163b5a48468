"""MemoryService on the wire."""
