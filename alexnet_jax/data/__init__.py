"""Pictures in: sources, batches on the host, augmentation on the device."""
