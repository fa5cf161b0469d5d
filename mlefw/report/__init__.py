"""Reports of runs as text, tables and self-contained HTML pages, in which all text from data is escaped."""
