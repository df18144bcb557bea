"""Measuring a trained net."""
