"""Images: references, the content-addressed store, unpacking, and one file for each source."""
