"""Options, errors, provenance and weights of a bundle's commands."""
