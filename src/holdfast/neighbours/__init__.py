"""Several processes of one application on one SQLite file: one owns it and runs the engine, the others talk to it."""
