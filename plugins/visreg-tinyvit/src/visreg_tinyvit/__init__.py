"""A plugin for visreg, which imports its modules one by one, when a config names what is in them."""
