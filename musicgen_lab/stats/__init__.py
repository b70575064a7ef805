"""Tables of a run: spread, effects, trends, interactions and their certainty."""
