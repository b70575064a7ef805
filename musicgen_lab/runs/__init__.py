"""What a sweep leaves on disk, and the table that is read from it."""
