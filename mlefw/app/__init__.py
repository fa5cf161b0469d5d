"""A local web page that shows gradient descent on its way to the exact estimate."""
