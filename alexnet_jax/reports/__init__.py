"""What a finished training run or evaluation writes, draws, and prints."""
