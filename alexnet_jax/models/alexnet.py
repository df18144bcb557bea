"""The Flax module that runs any model of `variants.py`, or one device's part of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax.models.layers import Context, FeatureSharding, ModelSpec


class AlexNet(nn.Module):
    """A model of the AlexNet family.

    Parameters are at `conv1/kernel` (HWIO), `conv1/bias`, ..., `fc8/kernel` (inputs, outputs); the
    inputs of the first dense layer are the last feature maps flattened in HWC order. Initialize
    with the default sharding; under another one, the module is applied to slices of those
    parameters. The output of each named layer, before an activation that follows it, is sown at
    `intermediates/conv1_output`.

    Attributes:
      spec: the layers.
      num_classes: outputs of the last layer.
      sharding: how the features of each layer are split over devices.
      dtype: type to compute in, such as "bfloat16"; None: that of the parameters. Parameters, batch
        statistics and logits are float32 at least.
    """

    spec: ModelSpec
    num_classes: int
    sharding: FeatureSharding = FeatureSharding()
    dtype: str | None = None

    @property
    def num_outputs(self) -> int:
        """Number of logits: `num_classes`, unless an override sets the features of the layer."""
        return self.spec.output_layer.features or self.num_classes

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
        heat_map: bool = False,
        layers: slice = slice(None),
    ) -> jax.Array:
        """Returns logits, or the features after a part of the layers.

        Args:
          x: preprocessed images, `float[batch, height, width, channels]`, or the input of the first
            of `layers`.
          train: whether dropout drops and batch norm uses the statistics of the batch; its running
            statistics are in the collection "batch_stats", which must then be mutable.
          dropout_keys: typed random keys, `key[batch]`, so that a mask depends on its example only
            and neither on the devices nor on the rest of the batch. None: split from Flax's
            `rngs={"dropout": key}`.
          heat_map: whether a fully convolutional model returns the logits at each position.
          layers: the layers to apply, all or a contiguous part. The output of a part that has a
            stop is returned as it is, with all features.

        Returns:
          `float[batch, num_classes]` logits, of a fully convolutional model their mean over all
          positions; with `heat_map`, `float[batch, rows, columns, num_classes]`.
        """
        if train and dropout_keys is None and self.has_rng("dropout"):
            dropout_keys = jax.random.split(self.make_rng("dropout"), x.shape[0])
        x = x.astype(self.dtype) if self.dtype else x
        shape = x.shape[1:]  # with the features of all devices
        spec = self.spec.with_num_classes(self.num_classes)
        for index, layer in list(enumerate(spec.layers))[layers]:
            x = self._all_features(x, shape) if layer.mixes_features() else x
            count = shape[-1] // x.shape[-1]
            context = Context(index, train, dropout_keys, self.dtype, self.sharding, count)
            x, shape = layer.apply(x, context), layer.output_shape(shape)
            if layer.name:
                self.sow("intermediates", f"{layer.name}_output", x)
        x = self._all_features(x, shape)
        if layers.stop is not None:
            return x
        logits = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return logits.mean((1, 2)) if logits.ndim == 4 and not heat_map else logits

    def _all_features(self, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.sharding.all_gather_features(x) if x.shape[-1] < shape[-1] else x
