"""The reference: audiocraft, with which the engine is compared."""
