"""Reading images: file bytes to uint8 arrays, and the paper's central square of one size."""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Callable

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

_log = logging.getLogger(__name__)

# Formats are recognized by content, not by name: ImageNet holds a PNG called .JPEG. The list
# excludes what datasets hardly contain, such as JPEG 2000, AVIF and formats without a signature,
# which random bytes can pass for: such files are reported and skipped. See also `every_format`.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".png", ".apng",
    ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip

# Formats of Pillow that start another program (EPS runs Ghostscript) or have no decoder here.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_COLORS = {1: ("GRAY", "Gray"), 3: ("RGB", "420")}  # as OpenCV, and so the authors, subsample
_LARGEST_DARK = 4096  # 12 bits: the range of many cameras and scanners
_LONGEST_JPEG = 65_500  # pixels: libjpeg's JPEG_MAX_DIMENSION

# Pillow warns of harmless oddities, such as the broken EXIF blocks of some ImageNet images. Ignored
# globally, since warnings.catch_warnings is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(Exception):  # noqa: N818 (a state of the data, counted and reported)
    """The bytes are not an image that can be decoded; the message is the reason."""


@functools.cache
def every_format() -> tuple[str, ...]:
    """Returns all formats that Pillow decodes, for images that a user names."""
    Image.init()
    return (*FORMATS, *sorted(Image.OPEN.keys() - {*FORMATS, *_NOT_DECODED}))


@functools.cache
def every_extension() -> tuple[str, ...]:
    """Returns the extensions of `every_format`."""
    registered = Image.registered_extensions().items()
    found = {extension for extension, name in registered if name in every_format()}
    return tuple(sorted(found | set(EXTENSIONS)))


def decode(data: bytes, channels: int, formats: tuple[str, ...] = FORMATS) -> np.ndarray:
    """Decodes one image file to 8-bit gray or RGB.

    The image is rotated upright by the orientation in its EXIF or XMP block. Alpha and transparent
    colors are dropped, not composited, as torchvision's loader does. 16-bit gray is scaled from
    0..65535 to 8 bits. CMYK JPEGs are assumed to be stored inverted, as Adobe does. Of an animation
    the first frame is taken.

    Args:
      data: the bytes of a file.
      channels: 1 for gray (ITU-R 601 luma), 3 for RGB.
      formats: those of Pillow that it may have.

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
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _refuse_bomb(image.width, image.height)
            return to_array(image, channels)
    except UnidentifiedImageError:
        raise UnreadableImage(f"not an image in a known format ({', '.join(formats)})") from None
    except Exception as error:  # damaged data make Pillow raise almost any exception
        raise UnreadableImage(str(error) or type(error).__name__) from error


def to_array(image: Image.Image, channels: int) -> np.ndarray:
    """Returns an open image, which it may change, as `decode` does a file.

    Raises:
      Exception: almost any, where its data are damaged.
    """
    image.load()
    # A broken EXIF block says nothing about the pixels.
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    pixels = np.array(_to_8_bits(image).convert("L" if channels == 1 else "RGB"))
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


def resize_as_torchvision(image: np.ndarray, size: int) -> np.ndarray:
    """Scales and crops as torchvision's Resize(size) and CenterCrop do, to the same pixels.

    The longer side is rounded down, the filter is bilinear with antialiasing, and the offset of the
    crop is rounded to even. A later center crop is then torchvision's of the whole image where its
    own offset is even: 16 for 224 of 256 pixels.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: side of the square, in pixels.

    Returns:
      uint8[size, size, channels].

    Raises:
      UnreadableImage: the longer side would be longer than a JPEG can be.
    """
    height, width = _proportional(image, size, int)
    scaled = _resample(image, height, width, Image.Resampling.BILINEAR)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return scaled[top : top + size, left : left + size]


def stretch(image: np.ndarray, size: int) -> np.ndarray:
    """Scales both sides to `size` with antialiasing, as torchvision's Resize((size, size)).

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: side of the square, in pixels.

    Returns:
      uint8[size, size, channels].
    """
    return _resample(image, size, size, Image.Resampling.BILINEAR)


def warp(image: np.ndarray, size: int) -> np.ndarray:
    """Scales both sides to `size`, whatever their ratio, as Caffe's tools do.

    They call OpenCV's resize with INTER_LINEAR: bilinear between four pixels, without antialiasing.
    This is its fixed-point arithmetic, so that the pixels are the same; Pillow would round down.

    Args:
      image: uint8[height, width, channels] with 1 or 3 channels.
      size: side of the square, in pixels.

    Returns:
      uint8[size, size, channels]; the image itself where it has that shape already.
    """
    height, width, channels = image.shape
    if height == width == size:
        return image
    rows, row_weights = _neighbors(height, size)
    columns, column_weights = _neighbors(width, size)
    column_weights = np.repeat(column_weights, channels, axis=1)

    def pick(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Returns uint8[size, size * channels], first of the longer side: it may be very long."""
        order = [(row, 0), (column, 1)] if height > width else [(column, 1), (row, 0)]
        pixels = functools.reduce(lambda array, chosen: array.take(*chosen), order, image)
        return pixels.reshape(size, -1)

    def between_columns(row: np.ndarray) -> np.ndarray:
        """Returns int32[size, size * channels] of some rows, 128 times the gray levels."""
        left, right = (pick(row, column) for column in columns)
        return (left * column_weights[0] + right * column_weights[1]) >> 4

    above, below = (
        between_columns(row) * weight[:, None] >> 16
        for row, weight in zip(rows, row_weights, strict=True)
    )
    return ((above + below + 2) >> 2).astype(np.uint8).reshape(size, size, channels)


def _neighbors(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what linear interpolation from `length` to `size` pixels takes, as OpenCV rounds it.

    Returns:
      int64[2, size], the pixels before and after each position, and their weights, int32[2, size],
      which add up to 2048.
    """
    position = ((np.arange(size) + 0.5) * (1 / (size / length)) - 0.5).astype(np.float32)
    before = np.floor(position)
    weight = np.rint((position - before) * 2048).astype(np.int32)
    pixels = np.stack([before, before + 1]).astype(np.int64).clip(0, length - 1)
    return pixels, np.stack([2048 - weight, weight])


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
    return _resample(image, *_proportional(image, size, round))


def _proportional(
    image: np.ndarray, size: int, rounding: Callable[[float], int]
) -> tuple[int, int]:
    """Returns the height and width of an image once its shorter side is `size`.

    Raises:
      UnreadableImage: the longer side would be longer than a JPEG can be.
    """
    height, width, _ = image.shape
    rows, columns = (rounding(size * length / min(height, width)) for length in (height, width))
    if max(rows, columns) > _LONGEST_JPEG:
        sizes = f"{width} x {height} pixels would become {columns} x {rows}"
        raise UnreadableImage(f"{sizes}, above the limit of {_LONGEST_JPEG} per side")
    return rows, columns


def _resample(
    image: np.ndarray, height: int, width: int, resampling: Image.Resampling | None = None
) -> np.ndarray:
    """Scales an image, by default with the filters closest to the authors' (resize_and_crop)."""
    if image.shape[:2] == (height, width):
        return image
    channels = image.shape[-1]
    source = Image.fromarray(image[..., 0] if channels == 1 else image)
    if resampling is None:
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


# How images become squares, by name, and how they become smaller when a dataset is prepared.
RESIZERS = {
    "crop": resize_and_crop,
    "torchvision": resize_as_torchvision,
    "stretch": stretch,
    "warp": warp,
}
PREPARED_RESIZERS = RESIZERS | {"short_side": resize_short_side}


def later_resize(prepared: str) -> str:
    """Returns which of RESIZERS images prepared with one of PREPARED_RESIZERS are read with."""
    return "crop" if prepared == "short_side" else prepared
