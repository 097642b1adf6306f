"""Run the network on cases and write what it finds."""
