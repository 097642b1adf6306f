"""The Attention U-Net."""

from mri_seg.networks.attention_unet import AttentionGate, AttentionUNet, DoubleConv

__all__ = ["AttentionGate", "AttentionUNet", "DoubleConv"]
