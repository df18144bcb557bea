"""The training core: state, step, optimizer, checkpoints and the loop around them."""
