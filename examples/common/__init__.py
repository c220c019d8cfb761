"""What several of the example applications share."""
