"""The containers in which rows travel from a data source to the objective."""
