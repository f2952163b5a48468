"""ToolConfigService on the wire."""
