"""The training loop: batches, optimiser steps, the averaging of weights, and the figures of each evaluation."""
