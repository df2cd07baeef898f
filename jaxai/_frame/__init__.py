"""What every method shares: targets, chunks, checks of arguments, options, noise."""
