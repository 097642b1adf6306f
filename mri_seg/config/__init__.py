"""Options, errors, provenance and weights of the bundle's commands."""
