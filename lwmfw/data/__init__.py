"""Images, and how they become batches."""
