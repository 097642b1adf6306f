"""The command line ``mri-seg``, as ``python -m mri_seg``."""

from mri_seg.cli.main import main

if __name__ == "__main__":
    main()
