"""Reports: one HTML file each, self-contained, in which all text from data is inert."""
