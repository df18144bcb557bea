"""Reading images: file bytes to uint8 arrays, and the paper's central square of one size."""

import contextlib
import functools
import io
import logging
import warnings

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

_log = logging.getLogger(__name__)

# Formats are recognized by content, not by name: ImageNet holds a PNG called .JPEG. The list
# excludes Pillow's plugins that start other programs (EPS runs Ghostscript), and the large decoders
# of JPEG 2000 and AVIF: such files are reported and skipped.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".png", ".apng",
    ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip

_COLORS = {1: ("GRAY", "Gray"), 3: ("RGB", "420")}  # as OpenCV, and so the authors, subsample
_LARGEST_DARK = 4096  # 12 bits: the range of many cameras and scanners
_LONGEST_JPEG = 65_500  # pixels: libjpeg's JPEG_MAX_DIMENSION

# Pillow warns of harmless oddities, such as the broken EXIF blocks of some ImageNet images. Ignored
# globally, since warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(Exception):  # noqa: N818 (a state of the data, counted and reported)
    """The bytes are not an image that can be decoded; the message is the reason."""


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes one image file to 8-bit gray or RGB.

    The image is rotated upright by the orientation in its EXIF or XMP block. Alpha and transparent
    colors are dropped, not composited, as torchvision's loader does. 16-bit gray is scaled from
    0..65535 to 8 bits. CMYK JPEGs are assumed to be stored inverted, as Adobe does. Of an animation
    the first frame is taken.

    Args:
      data: the bytes of a file in one of FORMATS.
      channels: 1 for gray (ITU-R 601 luma), 3 for RGB.

    Returns:
      uint8[height, width, channels].

    Raises:
      UnreadableImage: if the data are empty, truncated, not an image, or so large an image
        (Image.MAX_IMAGE_PIXELS, 89 million) that it may be a decompression bomb.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    if channels == 3 and (plain := _decode_plain_jpeg(data)) is not None:
        return plain
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_bomb(image.width, image.height)
            image.load()
            # A broken EXIF block says nothing about the pixels.
            with contextlib.suppress(Exception):
                ImageOps.exif_transpose(image, in_place=True)
            pixels = np.array(_to_8_bits(image).convert("L" if channels == 1 else "RGB"))
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # damaged data make Pillow raise almost any exception
        raise UnreadableImage(str(error) or type(error).__name__) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _decode_plain_jpeg(data: bytes) -> np.ndarray | None:
    """Decodes what needs only a JPEG decoder, to the same pixels as Pillow but faster.

    Returns None for everything else: other formats, CMYK, images with an orientation or damage.
    """
    if data[:2] != b"\xff\xd8" or b"Exif\0\0" in data or b"tiff:Orientation" in data:
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        _refuse_bomb(width, height)
        if colors not in ("YCbCr", "Gray"):
            return None
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        return None


def _refuse_bomb(width: int, height: int) -> None:
    """Raises UnreadableImage where Pillow would only warn of a decompression bomb."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit and width * height > limit:
        raise UnreadableImage(f"{width} x {height} pixels are above the limit of {limit} pixels")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Makes an image of any mode safe for Image.convert to L or RGB."""
    image.info.pop("transparency", None)
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range")
    if image.mode.startswith("I"):
        # Image.convert would clip at 255. 65535 = 257 * 255, so this rounds to the nearest.
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        if levels.max() < _LARGEST_DARK:
            _warn_of_dark_images()
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    return image


@functools.cache  # once in a process
def _warn_of_dark_images() -> None:
    _log.warning(
        "A 16-bit image has no value of %d or more. 16-bit values are taken as 0..65535, so such "
        "images come out nearly black: save images of a smaller range with 8 bits.",
        _LARGEST_DARK,
    )


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Scales the shorter side to `size`, up or down, and keeps the central square (paper 4.3).

    Only the central square is resampled: the rest never reaches the model. The authors shrink by
    area averaging and enlarge by cubic interpolation (cuda-convnet2, pyext.cpp:109-110). Of
    Pillow's filters Hamming is closest to the exact average over all ratios: 0.9 to 2.5 gray levels
    rms on photographs, where Box, whose weights are 0 or 1 and nothing in between, is off by up to
    6.3 and Bicubic by 1.8 to 2.8.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: side of the square, in pixels.

    Returns:
      uint8[size, size, channels]; the image itself where it has that shape already.
    """
    height, width, _ = image.shape
    if height == width == size:
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resample(image[top : top + side, left : left + side], size, size)


def warp(image: np.ndarray, size: int) -> np.ndarray:
    """Scales both sides to `size`, whatever their ratio, as Caffe's preparation does.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: side of the square, in pixels.

    Returns:
      uint8[size, size, channels].
    """
    return _resample(image, size, size)


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """Scales the shorter side to `size` and the longer in proportion, cropping nothing.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: pixels of the shorter side.

    Returns:
      uint8[height, width, channels].

    Raises:
      UnreadableImage: the longer side would be longer than a JPEG can be.
    """
    height, width, _ = image.shape
    side = min(height, width)
    scaled = [round(length * size / side) for length in (height, width)]
    if max(scaled) > _LONGEST_JPEG:
        sizes = f"{width} x {height} pixels would become {scaled[1]} x {scaled[0]}"
        raise UnreadableImage(f"{sizes}, above the limit of {_LONGEST_JPEG} per side")
    return _resample(image, *scaled)


def _resample(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scales an image with the filters closest to the authors' (see resize_and_crop)."""
    if image.shape[:2] == (height, width):
        return image
    channels = image.shape[-1]
    source = Image.fromarray(image[..., 0] if channels == 1 else image)
    shrinks = image.shape[0] * image.shape[1] > height * width
    resampling = Image.Resampling.HAMMING if shrinks else Image.Resampling.BICUBIC
    return np.array(source.resize((width, height), resampling)).reshape(height, width, channels)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Returns uint8[height, width, 1 or 3] as a JPEG file."""
    colors, subsampling = _COLORS[image.shape[-1]]
    return simplejpeg.encode_jpeg(image, quality, colors, subsampling)


def decode_jpeg(data: bytes, channels: int, out: np.ndarray | None = None) -> np.ndarray:
    """Returns the uint8[height, width, channels] of a JPEG file that `encode_jpeg` wrote.

    Args:
      data: the file.
      channels: 1 or 3.
      out: a contiguous array of the image's shape to write it to.

    Raises:
      UnreadableImage: the data are damaged.
    """
    try:
        return simplejpeg.decode_jpeg(data, _COLORS[channels][0], buffer=out)
    except ValueError as error:
        raise UnreadableImage(str(error)) from error


# How images become smaller when a dataset is prepared, by name.
RESIZERS = {"crop": resize_and_crop, "warp": warp, "short_side": resize_short_side}
