"""Score predictions by both protocols."""
