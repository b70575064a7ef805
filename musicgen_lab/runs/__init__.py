"""Run folders on disk, and the table that is read from them."""
