"""The engine: a MusicGen on one device of this process, making many different clips in one batch.

Read `engine.py` first: `Engine.step` is the whole loop. Importing this package imports no torch;
its modules do.
"""
