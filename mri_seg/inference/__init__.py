"""Run the network on cases and write the results."""
