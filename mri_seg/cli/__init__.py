"""The command line ``mri-seg``."""
