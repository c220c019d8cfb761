"""What `SqliteReader` is made of: threads and connections, statements, and the views made of their rows."""
