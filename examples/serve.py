"""Serve an ONNX model over HTTP: an array in, its outputs out. onnxruntime and the standard library.

    python examples/serve.py tiny.onnx --port 8080
    curl --data-binary @digit.npy localhost:8080    # {"output": [[…]]}

A sketch, for one trusted network: no limits on who asks, one request after the other.
"""

from __future__ import annotations

import argparse
import io
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import onnxruntime

_MOST = 64 << 20  # bytes of a request


def server(model: str, port: int = 8080, host: str = "127.0.0.1") -> HTTPServer:
    """A server that answers POST requests with the bytes of an `.npy`, the model's first input."""
    session = onnxruntime.InferenceSession(model)
    want = session.get_inputs()[0]
    names = [output.name for output in session.get_outputs()]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", 0))
                if not 0 < length <= _MOST:
                    raise ValueError(f"a request has 1 to {_MOST:,} bytes")
                array = np.load(io.BytesIO(self.rfile.read(length)), allow_pickle=False)
                outputs = session.run(names, {want.name: array})
                self.answer(200, {name: y.tolist() for name, y in zip(names, outputs, strict=True)})
            except Exception as error:  # whatever is wrong with a request, the server goes on
                self.answer(400, {"error": str(error), "wanted": f"{want.name} {want.type} {want.shape}"})

        def answer(self, status: int, content: dict[str, object]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return HTTPServer((host, port), Handler)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    print(f"http://127.0.0.1:{options.port}")
    server(options.model, options.port).serve_forever()
