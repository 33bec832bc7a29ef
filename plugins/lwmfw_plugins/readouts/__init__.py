"""Read-outs: what decides from features which class an image is of."""
