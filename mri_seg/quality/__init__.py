"""What a case says about how far its result can be trusted."""
