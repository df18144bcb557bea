"""What `config.job` can ask for, a short module each with `run(command)`."""
