"""A job queue that begins as one SQLite file."""
