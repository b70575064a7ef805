"""Clips to listen to, with their pictures, as HTML."""
