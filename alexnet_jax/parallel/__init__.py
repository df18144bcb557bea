"""Where arrays lie and how devices meet."""
