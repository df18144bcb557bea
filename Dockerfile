# docker build -t alexnet_jax .
# docker run --rm -v "$PWD/runs:/app/runs" alexnet_jax --config=configs/quickstart.py
# For NVIDIA GPUs: docker build --build-arg EXTRA='[cuda]' -t alexnet_jax . ; docker run --gpus all ...
FROM python:3.12-slim

ARG EXTRA=""
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY alexnet_jax alexnet_jax
COPY configs configs
RUN pip install --no-cache-dir --constraint constraints.txt --editable ".${EXTRA}"

ENTRYPOINT ["python", "-m", "alexnet_jax.main"]
CMD ["--config=configs/quickstart.py"]
