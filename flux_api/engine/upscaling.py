"""A picture made larger: plainly resized, and over it the model's detail in tiles."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image, ImageChops, ImageFilter

from flux_api.core import ImageRequest
from flux_api.images.fitting import pad
from flux_api.models.info import ModelInfo
from flux_api.models.upscale_tiles import Box, tiles_of
from flux_api.queue.tasks import Callbacks

# Of what neighbours share, how coarse a tile's detail may be. A small model draws each
# tile darker to its edges: with more of it all tiles together show as a lattice.
_COARSEST, _COARSEST_OF_SMALL = 2, 6


class Upscale:
    """The picture of ``request``, an upscale by the model ``info``, on its way: what
    has no tile yet is plainly resized. A tile is asked of the model, and brings only
    what is finer than the plain picture has; so neighbours agree on everything else."""

    def __init__(self, request: ImageRequest, info: ModelInfo) -> None:
        target = request.width, request.height
        # What has no tile yet, and what a model cannot draw, is still the picture.
        plain = request.images[0].resize(target, Image.Resampling.LANCZOS)
        self.tiling = tiles_of(target, info.native_size)
        # What is beyond the picture is cut off at the end.
        grid = self.tiling.size
        self._canvas = pad(plain, grid, (0, 0)) if grid != target else plain
        self._target, self._request = target, request
        share = _COARSEST if info.native_size is None else _COARSEST_OF_SMALL
        self._blur = ImageFilter.GaussianBlur(self.tiling.overlap / share)
        pipeline = info.tasks["upscale"].pipeline
        self._is_masked = pipeline.endswith("InpaintPipeline")

    def tile(self, box: Box) -> ImageRequest:
        """What is asked of the model for ``box``."""
        image = self._canvas.crop(box)
        mask = Image.new("L", image.size, 255) if self._is_masked else None
        return replace(
            self._request,
            images=(image,),
            mask_image=mask,
            width=image.width,
            height=image.height,
            partial_images=0,
        )

    def put(self, box: Box, drawn: Image.Image) -> None:
        """Lay ``drawn`` over ``box``; it fades in where an earlier tile was."""
        plain = self._canvas.crop(box)
        detailed = _with_detail(plain, drawn, self._blur)
        mask = _fading(plain.size, self._shared(box))
        self._canvas.paste(detailed, box[:2], mask)

    @property
    def picture(self) -> Image.Image:
        """The picture so far, of the size that was asked for."""
        return self._canvas.crop((0, 0, *self._target))

    def _shared(self, box: Box) -> tuple[int, int]:
        overlap = self.tiling.overlap
        return (overlap if box[0] else 0), (overlap if box[1] else 0)


def _with_detail(
    plain: Image.Image, drawn: Image.Image, blur: ImageFilter.GaussianBlur
) -> Image.Image:
    """``plain`` with what ``blur`` takes away from ``drawn``."""
    # plain's own base, and the drawn one's difference from its base, around 128.
    fine = ImageChops.subtract(drawn, drawn.filter(blur), scale=1, offset=128)
    return ImageChops.add(plain.filter(blur), fine, scale=1, offset=-128)


def _fading(size: tuple[int, int], shared: tuple[int, int]) -> Image.Image:
    """A mask (L) that rises from the left and the top over what is ``shared``: within
    its middle half, as models draw the very edge of a tile worst."""
    mask = Image.new("L", size, 255)
    for axis, width in enumerate(shared):
        if not width:
            continue
        length, half = size[axis], max(1, width // 2)
        rising = [255 * (i - width // 4) // half for i in range(length)]
        ramp = Image.new("L", (length, 1))
        ramp.putdata([max(0, min(255, value)) for value in rising])
        ramp = ramp.transpose(Image.Transpose.ROTATE_270) if axis else ramp
        mask = ImageChops.multiply(mask, ramp.resize(size))
    return mask


def count_tiles(callbacks: Callbacks, number: int, count: int) -> Callbacks:
    """``callbacks`` for tile ``number`` of ``count``: its steps are some of all."""

    def on_step(step: int, total: int) -> None:
        callbacks.on_step(number * total + step, count * total)

    return replace(callbacks, on_step=on_step)
