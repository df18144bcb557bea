"""Preprocessing on the device: crops, flips, color noise, mean subtraction."""
