"""The limit on what files declare."""

from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest

from mri_seg.utils.size_limit import MAX_VOXELS, SizeLimit, TooLargeError, codestream_size


class TestSizeLimit:
    def test_size_limit_lets_a_large_head_through(self) -> None:
        SizeLimit().add("a.nii", (512, 512, 1000))

    def test_size_limit_adds_up_the_files_of_a_volume(self) -> None:
        limit = SizeLimit(250)
        limit.add("1.png", (10, 10))
        limit.add("2.png", (10, 10))
        with pytest.raises(TooLargeError, match=r"3\.png: declares 10 x 10 voxels, 300 in all, .*--max_voxels 300"):
            limit.add("3.png", (10, 10))

    def test_size_limit_counts_channels_in_a_file_and_not_in_the_volume(self) -> None:
        limit = SizeLimit(300)
        for name in ("1.png", "2.png"):
            limit.add(name, (10, 10), 3)
        with pytest.raises(TooLargeError, match="10 x 10 voxels of 4 channels"):
            SizeLimit(300).add("3.png", (10, 10), 4)

    def test_size_limit_can_be_raised(self) -> None:
        SizeLimit(10 * MAX_VOXELS).add("a.nii", (2000, 2000, 2000))

    @pytest.mark.parametrize("largest", [0, -1])
    def test_size_limit_must_be_above_0(self, largest: int) -> None:
        with pytest.raises(ValueError, match="max_voxels is"):
            SizeLimit(largest)


class TestCodestreamSize:
    PIXELS = np.zeros((20, 30, 3), np.uint8)

    @pytest.mark.parametrize("encode", ["jpeg_encode", "jpegls_encode", "jpeg2k_encode", "ljpeg_encode"])
    def test_codestream_size_is_what_the_stream_declares(self, encode: str) -> None:
        pixels = self.PIXELS[..., 0] if encode == "ljpeg_encode" else self.PIXELS
        assert codestream_size(getattr(imagecodecs, encode)(pixels)) == (20, 30, 1 if pixels.ndim == 2 else 3)

    def test_codestream_size_of_anything_else_is_unknown(self) -> None:
        assert codestream_size(b"") is None
        assert codestream_size(b"\xff\xd8 and text that is none of the segments") is None
        assert codestream_size(imagecodecs.png_encode(self.PIXELS)) is None

    def test_codestream_size_is_the_largest_where_there_is_bait(self) -> None:
        bait = b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", 41, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1)
        assert codestream_size(bait + imagecodecs.jpeg2k_encode(self.PIXELS)) == (20, 30, 3)
