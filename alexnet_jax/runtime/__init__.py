"""What a process needs around the computation: devices, signals, progress, files."""
