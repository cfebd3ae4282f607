"""What a run leaves for people: the closing table and the page."""
