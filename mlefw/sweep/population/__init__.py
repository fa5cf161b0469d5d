"""Population training: jobs that differ in seed, learning rate or prior scale are trained together, as one tensor."""
