"""The array functions AlexNet needs beyond what JAX has.

XLA's CPU backend needs other formulations of some operations than GPUs and TPUs. Which is used
depends on the default backend while tracing. Both compute the same, so a program compiled for
another device than the default is only slower.
"""

from alexnet_jax.ops.convolution import convolution, locally_connected
from alexnet_jax.ops.lrn import alpha_of_sum, local_response_norm, within_channel_response_norm
from alexnet_jax.ops.pooling import adaptive_average_pool, average_pool, max_pool
