"""Reading of data files from other machines: object stores and web servers."""
