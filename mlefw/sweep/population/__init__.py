"""Population training: jobs that differ in numbers alone are trained together, as one tensor."""
