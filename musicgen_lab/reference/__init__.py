"""The reference: audiocraft itself, to which the engine is compared."""
