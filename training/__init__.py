"""Training of the default model: volumes, patches, augmentation, losses, the loop. Needs torch."""
