"""The training core: state, step, optimiser, checkpoints and the loop around them."""
