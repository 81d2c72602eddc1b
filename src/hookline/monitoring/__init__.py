"""What monitor is made of: sums of tensors, the steps of training, bounded series, the journal on disk, alerts."""
