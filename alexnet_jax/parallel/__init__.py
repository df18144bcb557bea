"""How arrays are sharded over devices, and how devices and processes communicate."""
