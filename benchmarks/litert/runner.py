"""Runs a .tflite file with LiteRT, one thread; for the Python of the emulated board.

runner.py MODEL PASSES [INPUT.npy RESULT.npy]: one call, in which LiteRT packs the weights, then so many more. Without files,
inputs are what memory holds, and results are left there.
"""

import sys

import numpy
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    model, passes, *files = sys.argv[1:]
    interpreter = Interpreter(model_path=model, num_threads=1)
    interpreter.allocate_tensors()
    values = numpy.load(files[0]) if files else None
    for _ in range(1 + int(passes)):
        if values is not None:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
        interpreter.invoke()
    if files:
        numpy.save(files[1], interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


main()
