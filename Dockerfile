# The command line, on CPUs:
#   docker build -t onnxprune .
#   docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" onnxprune compress model.onnx --data images.npz --ratio 0.25
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY onnxprune ./onnxprune
RUN pip install -c constraints.txt '.[cpu]'

# Nothing is written but into the working directory, so that any user will do, also one without a home.
RUN useradd --uid 1000 --create-home onnxprune
USER onnxprune
WORKDIR /work
ENTRYPOINT ["onnxprune"]
CMD ["--help"]
