"""Stores: the only owners of SQL."""
