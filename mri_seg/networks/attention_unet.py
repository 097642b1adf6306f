"""The Attention U-Net: a U-Net whose skip connections are weighted by additive attention gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.layers.factories import Conv, Pool
from monai.networks.layers.utils import get_act_layer

from mri_seg.config.preprocessing import keep_record

__all__ = ["AttentionGate", "AttentionUNet", "DoubleConv"]


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions, each followed by normalization, dropout (if any) and activation.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input.
        out_channels: channels after each convolution.
        strides: stride of the first convolution.
        act: activation, in the form of MONAI's factories.
        norm: normalization, in the form of MONAI's factories.
        dropout: probability of dropping a value after each convolution, 0 for none.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        strides: int = 1,
        act: str | tuple = "RELU",
        norm: str | tuple = "BATCH",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            *(
                Convolution(
                    spatial_dims,
                    channels,
                    out_channels,
                    strides=stride,
                    kernel_size=3,
                    act=act,
                    norm=norm,
                    dropout=dropout or None,
                    adn_ordering="NDA",
                )
                for channels, stride in ((in_channels, strides), (out_channels, 1))
            )
        )


class AttentionGate(nn.Module):
    """Additive attention gate (Oktay et al. 2018, https://arxiv.org/abs/1804.03999).

    The gating feature and the skip feature have the same resolution. Both are projected by 1x1 convolutions, added, and
    reduced to one coefficient between 0 and 1 per pixel. The skip feature is multiplied by this coefficient.

    Args:
        spatial_dims: 2 or 3.
        channels: channels of the gating feature and of the skip feature.
        hidden_channels: channels of their projections.
        act: activation between projection and coefficient, in the form of MONAI's factories.
        norm: normalization, in the form of MONAI's factories.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        hidden_channels: int,
        *,
        act: str | tuple = "RELU",
        norm: str | tuple = "BATCH",
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"kernel_size": 1, "padding": 0, "norm": norm}
        self.project_gate = Convolution(spatial_dims, channels, hidden_channels, act=None, **options)
        self.project_skip = Convolution(spatial_dims, channels, hidden_channels, act=None, **options)
        self.act = get_act_layer(act)
        self.coefficient = Convolution(spatial_dims, hidden_channels, 1, act="SIGMOID", **options)

    def forward(self, gate: torch.Tensor, skip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight the skip feature.

        Args:
            gate: gating feature from the decoder, ``(B, channels, *spatial)``.
            skip: skip feature from the encoder, of the same shape.

        Returns:
            the weighted skip feature ``(B, channels, *spatial)`` and the coefficients ``(B, 1, *spatial)``.
        """
        coefficient = self.coefficient(self.act(self.project_gate(gate) + self.project_skip(skip)))
        return skip * coefficient, coefficient


class AttentionUNet(nn.Module):
    """U-Net with an additive attention gate on every skip connection (Oktay et al. 2018).

    The encoder halves the sides by 2x2 max pooling, and the decoder doubles them by 2x2 transposed convolution. The
    upsampled decoder feature is the gating signal of the skip connection that it joins. With the defaults and
    ``spatial_dims=2``, the network has 1,966,373 parameters. With a ``stem_stride`` of 2, it works at half the
    resolution from the first convolution on, at a quarter of the cost, and interpolates the logits.

    Unlike MONAI's ``AttentionUnet``, it downsamples by max pooling instead of strided convolutions, has two
    convolutions per decoder level instead of one, lets you choose normalization and activation, and can return the
    attention coefficients.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input: adjacent slices or sequences.
        out_channels: channels of the logits.
        channels: channels of each level, from the finest to the coarsest; at least two levels.
        stem_stride: stride of the first convolution; the logits are upsampled by the same factor.
        residual: whether to use MONAI's ``ResidualUnit`` instead of :py:class:`DoubleConv`.
        act: activation, in the form of MONAI's factories.
        norm: normalization, in the form of MONAI's factories.
        dropout: probability of dropping a value after each 3x3 convolution, 0 for none.
        preprocessing: options of the preprocessing that the input gets, by name. They are saved with the weights, and
            weights that were trained with others are refused (:py:mod:`mri_seg.config.preprocessing`).

    Raises:
        ValueError: when there are fewer than two levels.

    Example::

        >>> network = AttentionUNet(spatial_dims=2)
        >>> network(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        *,
        stem_stride: int = 1,
        residual: bool = False,
        act: str | tuple = "RELU",
        norm: str | tuple = "BATCH",
        dropout: float = 0.0,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"channels must have at least two levels, got {tuple(channels)}.")
        self.stem_stride = stem_stride
        self.interpolation = {2: "bilinear", 3: "trilinear"}[spatial_dims]
        self.multiple = stem_stride * 2 ** (len(channels) - 1)
        """Every side of the input must be a multiple of this."""

        options: dict[str, Any] = {"act": act, "norm": norm, "dropout": dropout}
        unit: Callable[..., nn.Module] = ResidualUnit if residual else DoubleConv
        block = partial(unit, spatial_dims, **options)
        self.encoders = nn.ModuleList(
            block(i, o, strides=stem_stride if level == 0 else 1)
            for level, (i, o) in enumerate(zip((in_channels, *channels[:-1]), channels))
        )
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2)

        # From the coarsest level up: (below, above) are the channels before and after an upsampling.
        steps = list(zip(channels[:0:-1], channels[-2::-1]))
        upsampling = Conv[Conv.CONVTRANS, spatial_dims]
        self.upsamplings = nn.ModuleList(upsampling(below, above, kernel_size=2, stride=2) for below, above in steps)
        self.gates = nn.ModuleList(
            AttentionGate(spatial_dims, above, max(above // 2, 1), act=act, norm=norm) for _, above in steps
        )
        self.decoders = nn.ModuleList(block(2 * above, above) for _, above in steps)
        self.head = Conv[Conv.CONV, spatial_dims](channels[0], out_channels, kernel_size=1)
        keep_record(self, preprocessing, in_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits.

        Args:
            x: input ``(B, in_channels, *spatial)``; every side must be a multiple of ``multiple``.

        Returns:
            logits ``(B, out_channels, *spatial)``.

        Raises:
            ValueError: when a side of the input is not a multiple of ``multiple``.
        """
        return self._run(x)[0]

    def forward_with_attention(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Compute logits and the attention coefficients of each gate, resized to the resolution of the input.

        Args:
            x: input ``(B, in_channels, *spatial)``.

        Returns:
            logits ``(B, out_channels, *spatial)`` and a tensor ``(B, 1, *spatial)`` with values from 0 to 1 for each
            gate, from the finest level to the coarsest.

        Raises:
            ValueError: when a side of the input is not a multiple of ``multiple``.
        """
        logits, coefficients = self._run(x)
        return logits, [nn.functional.interpolate(c, size=x.shape[2:]) for c in reversed(coefficients)]

    def _run(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        for side in x.shape[2:]:
            # A trace would keep the sides of its example, and warn.
            if not torch.jit.is_tracing() and side % self.multiple != 0:
                raise ValueError(
                    f"every side of the input must be a multiple of {self.multiple}, got {list(x.shape[2:])}. "
                    f"Pad the input, for example with DivisiblePad(k={self.multiple})."
                )
        features: list[torch.Tensor] = []  # of each encoder, finest first
        for level, encoder in enumerate(self.encoders):
            if level > 0:
                x = self.pool(x)  # (B, C, H / 2^level, W / 2^level)
            x = encoder(x)
            features.append(x)

        x = features.pop()
        coefficients: list[torch.Tensor] = []  # of each gate, coarsest first
        for upsample, gate, decoder in zip(self.upsamplings, self.gates, self.decoders):
            x = upsample(x)
            skip, coefficient = gate(x, features.pop())
            coefficients.append(coefficient)
            x = decoder(torch.cat([skip, x], dim=1))
        logits = self.head(x)
        if self.stem_stride > 1:
            logits = nn.functional.interpolate(logits, scale_factor=float(self.stem_stride), mode=self.interpolation)
        return logits, coefficients
