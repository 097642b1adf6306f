"""Draw outlines, contact sheets, and the HTML page of a case."""
