"""What is left of a study that heads were fitted without."""
