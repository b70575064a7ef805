"""The live page of the service: type a prompt, turn the knobs, and hear the clips as they grow."""
