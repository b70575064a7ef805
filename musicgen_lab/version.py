"""The version of this package, kept in its source, so that source without its wheel has it too."""

VERSION = "0.1.0"
