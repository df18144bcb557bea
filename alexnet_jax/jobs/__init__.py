"""One module per job, `config.job`, with a function `run(command, console)`."""
