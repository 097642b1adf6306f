"""Find cases, and read each as one FLAIR volume."""
