"""Score predictions by the slice protocol and by the patient protocol."""
