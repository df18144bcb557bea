"""Writing prepared datasets. Nothing but the job `prepare` imports this package."""
