"""The reading side of the PostgreSQL store."""
