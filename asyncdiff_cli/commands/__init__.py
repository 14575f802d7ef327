"""One file per command: parse, call the engine, render."""
