"""AccessService."""
