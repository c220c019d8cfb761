"""The application's own databases: what holdfast keeps in them, and the connections that callers hand over."""
