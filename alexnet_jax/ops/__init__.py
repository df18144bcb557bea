"""The array functions AlexNet needs beyond what JAX has."""

from alexnet_jax.ops.convolution import convolution, locally_connected
from alexnet_jax.ops.lrn import alpha_of_sum, local_response_norm, within_channel_response_norm
from alexnet_jax.ops.pooling import adaptive_average_pool, average_pool, max_pool
