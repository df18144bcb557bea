"""Looking at a trained net: its pictures."""
