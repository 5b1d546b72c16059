"""A page that recognises what one draws, and the server that hands it out."""
