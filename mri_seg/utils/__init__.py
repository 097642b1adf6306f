"""What every stage uses: processes, files, limits, messages."""
