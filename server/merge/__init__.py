"""From accepted updates to the next prompt: rules, strategies, noise and secure sums."""
