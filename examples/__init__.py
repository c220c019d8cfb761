"""Applications that run on holdfast."""
