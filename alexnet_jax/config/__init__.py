"""The config: its keys and defaults, the command line, and the checks across keys."""
