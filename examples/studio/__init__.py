"""A content studio: work that takes a while and fails now and then. README.md says what it shows."""
