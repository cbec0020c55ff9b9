# The command line, on CPUs:
#   docker build -t onnxprune .
#   docker run --rm -v "$PWD:/work" -u "$(id -u):$(id -g)" onnxprune compress model.onnx --data images.npz --ratio 0.25
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY onnxprune ./onnxprune
RUN pip install -c constraints.txt '.[cpu,images,report]'

# Any user will do, also one without a home: nothing is written but where it is asked for. onnxruntime would keep its
# telemetry in the home, and warns at every start where there is none.
ENV ORT_DISABLE_TELEMETRY=1
RUN useradd --uid 1000 --create-home onnxprune
USER onnxprune
WORKDIR /work
ENTRYPOINT ["onnxprune"]
CMD ["--help"]
