"""Controls: features that no trained model was needed for."""
