/* The model on a processor without an operating system, under QEMU: files of plain bytes in, files of plain bytes out. */
#include "bare_model.h"
#include "semihosting.h"

enum { BAD_INPUT = 2, FAILED = 1 };

static int moved(int mode, const char *kind, int index, void *data, size_t size) {
  char name[16];
  int length = 0;
  while (*kind) name[length++] = *kind++;
  if (index > 9) name[length++] = (char)('0' + index / 10);
  name[length++] = (char)('0' + index % 10);
  name[length] = 0;
  return semihosting_move(mode, name, (size_t)length, data, size);
}

int main(void) {
  for (int i = 0; i < INPUTS; ++i) {
    if (!moved(MODE_READ, "input", i, inputs[i].data, inputs[i].bytes)) {
      semihosting_say("error: an input is missing or too short\n");
      return BAD_INPUT;
    }
  }
  const int code = run_model();
  if (code) {
    semihosting_say("error: reconvene_run failed\n");
    return FAILED;
  }
  for (int i = 0; i < OUTPUTS; ++i) {
    if (!moved(MODE_WRITE, "output", i, outputs[i].data, outputs[i].bytes)) {
      semihosting_say("error: cannot write an output\n");
      return BAD_INPUT;
    }
  }
  return 0;
}
