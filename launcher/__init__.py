"""The launcher: sets Mica up on one machine, runs it with its lab, takes it down. Standard library only."""
