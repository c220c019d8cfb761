"""A catalogue of products, which merchants import from their shops. README.md says what it shows."""
