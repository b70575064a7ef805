"""From a run folder to a page to read and to pass on."""
