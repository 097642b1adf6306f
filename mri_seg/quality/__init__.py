"""Say how far a result can be trusted: checks of the image and of the lesions, and what is expected of the mask."""
