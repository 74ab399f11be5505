"""Does every figure of a session follow from its raw files? They are only read; nothing is launched or fetched."""
