"""Places inside networks: their names, what flows through them, and how a network is run on from one."""
